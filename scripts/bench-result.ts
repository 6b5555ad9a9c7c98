/** @file What a bench gives back, how it is printed, and rounds in which ours and the peer alternate. */
import { loadavg } from 'node:os';

/** One comparison. `--json` prints it as one line. */
export interface BenchResult {
  bench: string;
  case: string;
  /** Ours by the peer's: the median of the rounds' ratios. */
  ratio: number;
  higher_is_better: boolean;
  /** What `ratio` should reach; null where nothing is asked. */
  goal: number | null;
  rounds: number;
  /** Median of the rounds, in the unit that `case` names. */
  ours: number;
  peer: number;
  /** Load average of the last minute when the rounds began. */
  load: number;
}

/** Options of a bench, as node's parseArgs takes them, each given once. */
export type BenchFlagTypes = Readonly<Record<string, { type: 'string' | 'boolean'; default?: string | boolean }>>;
export type BenchFlags = Readonly<Record<string, string | boolean | undefined>>;

/** A file scripts/bench/NAME.ts. */
export interface BenchModule {
  /** What it takes beside `--json`, `--case` and `--rounds`. */
  readonly options?: BenchFlagTypes;
  /** How many of the results are the main ones: the first ones. Default 1. */
  readonly main?: number;
  bench(options: BenchOptions): Promise<BenchResult[]>;
}

export interface BenchOptions {
  rounds: number;
  /** Values of the module's own options. */
  flags: BenchFlags;
  /** A line for people: to the console, or to stderr beside `--json`. */
  log(line: string): void;
}

export const median = (values: readonly number[]): number => {
  const sorted = [...values].sort((a, b) => a - b);
  const half = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[half]! : (sorted[half - 1]! + sorted[half]!) / 2;
};

/** Rounds of both, each giving its own measure; who begins alternates, so that neither always finds the warmer machine. */
export async function pairedRounds<A, B>(options: {
  rounds: number;
  ours: () => Promise<A>;
  peer: () => Promise<B>;
  onRound?: (round: number, ours: A, peer: B) => void;
}): Promise<{ ours: A[]; peer: B[]; load: number }> {
  const [load = 0] = loadavg();
  const ours: A[] = [];
  const peer: B[] = [];
  for (let round = 0; round < options.rounds; round++) {
    if (round % 2 === 1) peer.push(await options.peer());
    ours.push(await options.ours());
    if (round % 2 === 0) peer.push(await options.peer());
    options.onRound?.(round, ours.at(-1) as A, peer.at(-1) as B);
  }
  return { ours, peer, load };
}

/** Medians and the ratio of paired measures. */
export function compare(
  what: Pick<BenchResult, 'bench' | 'case' | 'higher_is_better' | 'goal' | 'load'> & {
    ours: readonly number[];
    peer: readonly number[];
  },
): BenchResult {
  const { bench, case: name, higher_is_better, goal, ours, peer, load } = what;
  const ratio = median(ours.map((value, round) => value / peer[round]!));
  const rounds = ours.length;
  return { bench, case: name, ratio, higher_is_better, goal, rounds, ours: median(ours), peer: median(peer), load };
}

const short = (value: number): string => String(Number(value.toPrecision(4)));

/** A line for people. */
export function describeResult({ bench, ratio, higher_is_better, goal, ours, peer, ...result }: BenchResult): string {
  const reached =
    goal === null ? '' : (higher_is_better ? ratio >= goal : ratio <= goal) ? ', reached' : ', NOT reached';
  const asked = goal === null ? '' : ` (goal ${higher_is_better ? '>=' : '<='} ${short(goal)}${reached})`;
  return `${bench} ${result.case}: ours ${short(ours)}, peer ${short(peer)}, ratio ${short(ratio)}${asked}; ${result.rounds} rounds, load ${short(result.load)}`;
}

/** The line that `--json` prints. */
export function jsonLine(result: BenchResult): string {
  return JSON.stringify(result, (_, value) => (typeof value === 'number' ? Number(value.toPrecision(6)) : value));
}

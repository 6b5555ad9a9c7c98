/** @file The evaluation of a policy, question by question: tries until the process is valid, each written down as it ends. */
import type { Group, Sample, SamplingOptions, Trajectory } from '@frame-thinker/core';
import { InvariantError } from '@frame-thinker/core';
import type { PolicyWorker } from '@frame-thinker/worker-pool';
import type { EvaluationLog, TryRecord } from './evaluation-log.ts';
import type { Judge } from './try-verdicts.ts';

/** Look again over several turns, or answer from one uniform look. */
export type Strategy = 'spotlight' | 'uniform';

export interface EvaluationOptions {
  worker: Pick<PolicyWorker, 'rollout'>;
  /** Rows of the data set, in order. */
  samples: readonly Sample[];
  strategy: Strategy;
  /** Tries per question. With more than one the last may only answer. */
  tries: number;
  sampling: SamplingOptions;
  judge: Judge;
  /** Frames that a look shows of this sample. */
  framesOf: (sample: Sample) => number;
  /** The response as text. */
  decode: (ids: Int32Array) => string;
  log: EvaluationLog;
  /** Ends the evaluation early; what is done is kept. */
  signal?: AbortSignal;
  /** Called with each try that ends. */
  onRecord?: (record: TryRecord) => void;
}

const kindOf = ({ extraInfo, dataSource }: Sample): string =>
  typeof extraInfo.kind === 'string' ? extraInfo.kind : dataSource;

const STOPPED = Symbol('stopped');

/** The items, until the signal says stop. */
async function* until<T>(items: AsyncIterable<T>, signal: AbortSignal | undefined): AsyncGenerator<T> {
  const iterator = items[Symbol.asyncIterator]();
  let stop = (): void => {};
  const stopped = new Promise<typeof STOPPED>((resolve) => {
    stop = () => resolve(STOPPED);
  });
  signal?.addEventListener('abort', stop);
  try {
    while (!signal?.aborted) {
      const next = iterator.next();
      next.catch(() => {}); // Of no interest when the stop came first.
      const item = await Promise.race([next, stopped]);
      if (item === STOPPED || item.done) return;
      yield item.value;
    }
  } finally {
    signal?.removeEventListener('abort', stop);
  }
}

/** The next try of each row that has no final one yet. */
function openTries(rows: number, records: readonly TryRecord[]): Map<number, number> {
  const next = new Map(Array.from({ length: rows }, (_, row) => [row, 0]));
  for (const record of records) {
    if (record.final) next.delete(record.row);
    else if (next.has(record.row)) next.set(record.row, Math.max(next.get(record.row)!, record.try + 1));
  }
  return next;
}

/**
 * Evaluates the rows that the log has no final record of. Random numbers hang on (step 0, row, try) alone, so neither
 * batches nor a stop change a record. Resolves with the final records by row, or with undefined when it was stopped.
 */
export async function evaluate(options: EvaluationOptions): Promise<TryRecord[] | undefined> {
  const { worker, samples, strategy, tries, sampling, log, signal, onRecord } = options;
  const records = log.records.filter(({ row }) => row < samples.length);
  const open = openTries(samples.length, records);

  const toGroup = (row: number, attempt: number): Group => ({
    sample: { ...samples[row]!, uid: String(row) },
    position: row * tries + attempt,
    n: 1,
    step: 0,
    ...(strategy === 'uniform' || (tries > 1 && attempt === tries - 1) ? { answerOnly: true } : {}),
  });

  for (let attempt = 0; attempt < tries; attempt++) {
    const groups = [...open].filter(([, next]) => next === attempt).map(([row]) => toGroup(row, attempt));
    if (groups.length === 0) continue;
    for await (const [trajectory] of until(worker.rollout(groups, sampling), signal)) {
      if (!trajectory) throw new InvariantError('a worker returned a question without its try');
      const row = Number(trajectory.uid);
      const record = recordOf(trajectory, { ...options, row, attempt });
      log.append(record);
      records.push(record);
      if (record.final) open.delete(row);
      else open.set(row, attempt + 1);
      onRecord?.(record);
    }
    if (signal?.aborted) return undefined;
  }
  return records.filter(({ final }) => final).sort((a, b) => a.row - b.row);
}

function recordOf(
  trajectory: Trajectory,
  {
    row,
    attempt,
    samples,
    tries,
    judge,
    framesOf,
    decode,
  }: Pick<EvaluationOptions, 'samples' | 'tries' | 'judge' | 'framesOf' | 'decode'> & { row: number; attempt: number },
): TryRecord {
  const sample = samples[row]!;
  const { outcome, answer, toolCalls, choices, rules } = judge(trajectory, sample);
  return {
    version: 1,
    row,
    try: attempt,
    final: outcome !== 'format_error' || attempt === tries - 1,
    outcome,
    ...(answer === undefined ? {} : { answer }),
    ground_truth: sample.groundTruth,
    kind: kindOf(sample),
    data_source: sample.dataSource,
    end: trajectory.end,
    tool_calls: toolCalls,
    choices,
    images: framesOf(sample) * (1 + choices),
    rules,
    extra_info: sample.extraInfo,
    turns: trajectory.turns,
    frames: trajectory.frames,
    text: decode(trajectory.ids.subarray(trajectory.promptLength)),
  };
}

/**
 * @file `pnpm bench engines [--threads N] [--backend gpu|node|wasm] [--hidden N --layers N]`: a training step of the tiny policy,
 * or of one of that size with random weights, on TensorFlow.js (ours) and on ONNX Runtime on the CPU (peer), each in a process of its own, by turns:
 * time of a step, its processor time and peak memory. That both give the same log-probs and gradients is checked first.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { join } from 'node:path';
import { InputError, RunError } from '@frame-thinker/core';
import { findPackage } from '@frame-thinker/engine-tfjs';
import { type BenchOptions, type BenchResult, compare, pairedRounds } from '../bench-result.ts';
import type { StepReport } from './engines/training-step.ts';

/** Steps before the rounds: the first compiles, the second may still grow the arena. */
const WARM = 2;
const LOG_PROB_LIMIT = 1e-4;
const GRADIENT_LIMIT = 1e-3;

interface Stepper {
  step(): Promise<StepReport>;
  end(): void;
}

async function startEngine(name: string, words: readonly string[]): Promise<Stepper> {
  const child: ChildProcess = fork(join(import.meta.dirname, 'engines/training-step.ts'), [name, ...words], {
    execArgv: ['--import', import.meta.resolve('tsx')],
    serialization: 'advanced',
  });
  const answer = <T>(): Promise<T> =>
    new Promise((resolve, reject) => {
      const failed = (code: number | null) => reject(new RunError(`bench engines: ${name} ended (${code})`));
      child.once('exit', failed);
      child.once('message', (message) => {
        child.off('exit', failed);
        resolve(message as T);
      });
    });
  await answer();
  return {
    step: () => {
      const report = answer<StepReport>();
      child.send('step');
      return report;
    },
    end: () => child.kill(),
  };
}

/** @throws RunError when the first steps of two engines differ. */
function proveEqual(ours: StepReport, peer: StepReport): string {
  const logProbs = peer.logProbs!.reduce((worst, x, i) => Math.max(worst, Math.abs(x - ours.logProbs![i]!)), 0);
  let [difference, size] = [0, 0];
  for (const [i, x] of peer.gradients!.entries()) {
    difference += (x - ours.gradients![i]!) ** 2;
    size += x ** 2;
  }
  const gradients = Math.sqrt(difference / size);
  const line = `largest difference of log-probs ${logProbs.toExponential(1)}, of gradients ${gradients.toExponential(1)} of their norm`;
  if (!(logProbs <= LOG_PROB_LIMIT && gradients <= GRADIENT_LIMIT && size > 0))
    throw new RunError(`bench engines: the engines do not give equal results: ${line}`);
  return `equal results: ${line}`;
}

export const options = {
  threads: { type: 'string', default: '1' },
  backend: { type: 'string', default: 'node' },
  hidden: { type: 'string' },
  layers: { type: 'string' },
} as const;

/** Width and layers of a policy with random weights; none for the tiny policy. */
function sizeOf({ hidden, layers }: BenchOptions['flags']): string[] {
  if (hidden === undefined && layers === undefined) return [];
  const [width, depth] = [Number(hidden), Number(layers)];
  // Heads have 32 values, and two of them share a key head.
  if (!(width >= 64 && width % 64 === 0 && Number.isInteger(depth) && depth > 0))
    throw new InputError(
      `bench engines: --hidden ${hidden} --layers ${layers}: expected both, the first a multiple of 64`,
    );
  return [`${width}`, `${depth}`];
}

export async function bench({ rounds, flags, log }: BenchOptions): Promise<BenchResult[]> {
  const [threads, backend] = [Number(flags.threads), flags.backend];
  if (!(Number.isInteger(threads) && threads > 0))
    throw new InputError(`bench engines: --threads ${flags.threads}: expected a whole number above 0`);
  if (backend !== 'gpu' && backend !== 'node' && backend !== 'wasm')
    throw new InputError(`bench engines: --backend ${backend}: expected gpu, node or wasm`);
  const words = [`${threads}`, ...sizeOf(flags)];
  const found = findPackage(backend);
  if (!found.ok) throw new InputError(`bench engines: ${found.why}`);
  const tfjs = await startEngine(backend, words);
  const onnx = await startEngine('onnx', words);
  try {
    log(proveEqual(await tfjs.step(), await onnx.step()));
    for (let i = 1; i < WARM; i++) {
      await tfjs.step();
      await onnx.step();
    }
    const { ours, peer, load } = await pairedRounds({
      rounds,
      ours: tfjs.step,
      peer: onnx.step,
      onRound: (round, a, b) => log(`round ${round + 1}: tfjs ${a.ms.toFixed(0)} ms, onnx ${b.ms.toFixed(0)} ms`),
    });
    const shared = { bench: 'engines', higher_is_better: false, goal: null, load };
    const of = (measure: (report: StepReport) => number) => ({ ours: ours.map(measure), peer: peer.map(measure) });
    return [
      compare({ ...shared, case: 'training step, ms', ...of(({ ms }) => ms) }),
      compare({ ...shared, case: 'training step, CPU ms', ...of(({ cpuMs }) => cpuMs) }),
      compare({ ...shared, case: 'peak RSS, MB', ...of(({ peakBytes }) => peakBytes / 1e6) }),
    ];
  } finally {
    tfjs.end();
    onnx.end();
  }
}

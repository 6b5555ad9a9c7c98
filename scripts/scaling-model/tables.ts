/** @file The tables of docs/scaling.md. */
import type { LocalCosts, RayCosts, ScalingMeasurement } from './measurement.ts';
import { exchangeLine, type LargeJob, type LargePrediction, predictLargeJob, RAY_CALLS, validate } from './model.ts';

/** Qwen2.5-VL-7B on one NVIDIA H200 a worker. What each number is, docs/scaling.md says. */
export const LARGE_JOB: LargeJob = {
  ...{ parameters: 8.29e9, weightBytes: 2, sumBytes: 2, n: 8, tokens: 6000, written: 800 },
  ...{ flops: 989e12, memory: 4.8e12, utilisation: 0.4, network: 50e9, spread: 0.3, controller: 1 },
};
const BATCH = 32;
const A_WORKER = 4;
const WORKERS = [8, 16, 32, 64, 128, 256, 512];

function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  return [head, head.map(() => '---'), ...rows].map((cells) => `| ${cells.join(' | ')} |`).join('\n');
}

/** Three digits at most, and no more than tenths of milliseconds. */
const digits = (value: number): string =>
  value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2);

export function validationTable(measurement: ScalingMeasurement): string {
  const rows = validate(measurement).map(({ workers, measured, predicted, error }) => [
    `${workers}`,
    digits(measured),
    digits(predicted),
    `${error >= 0 ? '+' : ''}${error.toFixed(0)} %`,
  ]);
  return table(['workers', 'measured, s', 'model, s', 'error'], rows);
}

/** Milliseconds a byte of one worker's sums: on the local pool, and what each worker adds there; on Ray, and of a call. */
export function exchangeCosts(local: LocalCosts, ray: RayCosts) {
  const bytes = 8 * ray.parameters;
  const { fixed, slope } = exchangeLine(local.transfers);
  return {
    local: { byte: fixed / (8 * local.transfers[0]!.parameters), worker: slope },
    ray: { byte: (ray.collect + ray.spread - RAY_CALLS * ray.call) / bytes, call: ray.call },
  };
}

export function largeTable(local: LocalCosts, ray: RayCosts, batch: 'fixed' | 'growing'): string {
  const costs = exchangeCosts(local, ray);
  const of = (workers: number): LargePrediction =>
    predictLargeJob(LARGE_JOB, costs, { workers, questions: batch === 'fixed' ? BATCH : A_WORKER * workers });
  const rows = WORKERS.map(of).map((p) => {
    const work = p.generate + p.update + LARGE_JOB.controller;
    return [
      ...[`${p.workers}`, `${p.questions}`, digits(p.generate), digits(p.update)],
      ...[p.local, p.ray, p.ring].map(digits),
      ...[work + p.ray, work + p.ring].map(digits),
    ];
  });
  const sums = ['sums, local', 'sums, Ray', 'sums, ring'];
  return table(['workers', 'questions', 'rollout, s', 'update, s', ...sums, 'step, Ray', 'step, ring'], rows);
}

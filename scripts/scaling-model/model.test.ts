import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import type { LocalCosts, RayCosts, ScalingMeasurement } from './measurement.ts';
import {
  expectedLargest,
  fitLine,
  measuredInputs,
  parallelTime,
  predictLargeJob,
  predictMeasuredJob,
  validate,
} from './model.ts';
import { LARGE_JOB, largeTable, validationTable } from './tables.ts';

const docs = join(import.meta.dirname, '../../docs');
const readJson = <T>(name: string): T => JSON.parse(readFileSync(join(docs, 'scaling', name), 'utf8')) as T;

/** Steps that take what equal questions, an exchange of 10 ms a worker and a controller of 50 ms give. */
function ideal(): ScalingMeasurement {
  const step = (workers: number) => {
    const each = { gen: 8 / workers, update_actor: 16 / workers + (workers > 1 ? 0.01 * workers : 0) };
    const phases = each.gen + each.update_actor;
    return { phases, step: phases + 0.05, each, idle: 0, reward: 1 };
  };
  return {
    ...{ pool: 'local', cpu: 'any', cores: 8, questions: 16, n: 8, load: 0 },
    longest: [Array<number>(16).fill(100)],
    messages: { call: 0, megabyte: 1 },
    transfers: [1, 2, 4].map((workers) => ({ workers, parameters: 1e6, collect: 8 * workers, spread: 2 * workers })),
    runs: [1, 2, 4, 8].map((workers) => ({ workers, round: 0, steps: [step(workers), step(workers)] })),
  };
}

describe('the scaling model', () => {
  it('knows how far the largest of n normal numbers is out', () => {
    // Exact values, to four digits.
    for (const [n, value] of [
      [1, 0],
      [2, 0.5642],
      [3, 0.8463],
      [8, 1.4236],
      [64, 2.3439],
    ] as const)
      expect(Math.abs(expectedLargest(n) - value), `${n}`).toBeLessThanOrEqual(0.02 * value);
  });

  it('lets the slowest worker have the most pieces, and more of them where work is unequal', () => {
    expect(parallelTime({ seconds: 12, pieces: 6, workers: 1, spread: 0.5 })).toBe(12);
    expect(parallelTime({ seconds: 12, pieces: 6, workers: 4, spread: 0 })).toBe(4);
    // More workers than pieces: no faster.
    const [six, many] = [6, 100].map((workers) => parallelTime({ seconds: 12, pieces: 6, workers, spread: 0.5 }));
    expect(many).toBe(six);
    expect(six).toBeGreaterThan(2 * (1 + 0.5));
  });

  it('fits a line through costs', () => {
    const { fixed, slope } = fitLine([
      [1, 5],
      [2, 7],
      [4, 11],
    ]);
    expect(fixed).toBeCloseTo(3, 12);
    expect(slope).toBeCloseTo(2, 12);
  });

  it('gives back a job that is as it says', () => {
    const measurement = ideal();
    for (const { workers, measured, predicted, error } of validate(measurement)) {
      expect(predicted, `${workers}`).toBeCloseTo(measured, 9);
      expect(error).toBeCloseTo(0, 6);
    }
    const exchange = predictMeasuredJob(measuredInputs(measurement), 4).exchange;
    expect(exchange).toBeCloseTo(0.04, 9);
  });

  it('counts 7B by hand: one worker and one question', () => {
    const costs = { local: { byte: 1e-6, worker: 2e-6 }, ray: { byte: 4e-6, call: 5 } };
    const job = {
      ...LARGE_JOB,
      parameters: 1e9,
      tokens: 100,
      written: 10,
      flops: 1e12,
      utilisation: 0.5,
      memory: 1e12,
    };
    const { generate, update, local, ray, ring } = predictLargeJob(job, costs, { workers: 1, questions: 1 });
    expect(generate).toBeCloseTo((10 * 2e9) / 1e12 + (2e9 * 90) / 0.5e12, 12);
    expect(update).toBeCloseTo((6e9 * 8 * 100) / 0.5e12, 12);
    expect(local).toBeCloseTo(2e9 * 3e-9, 12);
    expect(ray).toBeCloseTo(2e9 * 4e-9 + 8 * 0.005, 12);
    // Nobody to exchange with.
    expect(ring).toBe(0);
  });

  it('prints the tables of docs/scaling.md', () => {
    const page = readFileSync(join(docs, 'scaling.md'), 'utf8');
    const measurement = readJson<ScalingMeasurement>('local-runs.json');
    const costs = readJson<LocalCosts>('local-costs.json');
    const ray = readJson<RayCosts>('ray.json');
    expect(page).toContain(validationTable(measurement));
    for (const batch of ['fixed', 'growing'] as const) expect(page).toContain(largeTable(costs, ray, batch));
  });
});

/**
 * @file A row's sampled ids depend on its question, its row number and the weights alone: not on batch mates, order, group or
 * batch size, slots, workers, or how long frames and environments take. The same configuration and seed give the same weights.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { loadConfig } from '@frame-thinker/config';
import type { Group, Sample, SamplingOptions, Trajectory } from '@frame-thinker/core';
import { createRng } from '@frame-thinker/core';
import { readEvaluationRows, startWorker } from '@frame-thinker/trainer';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { checkpointHashes, metricsOf, trajectoriesOf } from '../faults/training-run.ts';
import { root, runCommand } from './processes.ts';

const runs = mkdtempSync(join(tmpdir(), 'ft-determinism-'));
afterAll(() => rmSync(runs, { recursive: true, force: true }));
const CONFIG = join(root, 'configs/debug/tiny.yaml');
const LATE = 'env.registry={think_with_video: tests/e2e/determinism-environment.ts}';
const sampling: SamplingOptions = { temperature: 1, topP: 1, topK: -1, doSample: true };

interface Row {
  ids: number[];
  logProbs: Float32Array;
  end: string;
  frames: string[];
}
/** A question is rolled out in rows first … first + count − 1 of the batch. */
interface Question {
  sample: Sample;
  first: number;
  count: number;
}
/** The questions as groups of n: a group's position is its first row / n. */
const groupsOf = (questions: readonly Question[], n: number): Group[] =>
  questions.flatMap(({ sample, first, count }) =>
    Array.from({ length: count / n }, (_, k) => ({
      // Groups are told apart by uid.
      sample: { ...sample, uid: `${sample.uid} ${first + k * n}` },
      position: first / n + k,
      n,
      step: 3,
    })),
  );

async function rollOut(
  groups: readonly Group[],
  { slots, workers = 1, delays }: { slots: number; workers?: number; delays?: number },
): Promise<Map<number, Row>> {
  process.env.DELAY_SEED = String(delays ?? 0);
  const { config } = loadConfig({
    file: CONFIG,
    overrides: [`actor_rollout_ref.rollout.slots=${slots}`, ...(delays === undefined ? [] : [LATE])],
  });
  const worker = await startWorker(config, { workers });
  try {
    const positions = new Map(groups.map((group) => [group.sample.uid, group.position * group.n]));
    const rows = new Map<number, Row>();
    for await (const trajectories of worker.rollout(groups, sampling))
      for (const t of trajectories) rows.set(positions.get(t.uid)! + t.sample, rowOf(t));
    return rows;
  } finally {
    await worker.close();
  }
}
const rowOf = ({ ids, logProbs, end, frames }: Trajectory): Row => ({
  ids: [...ids],
  logProbs,
  end,
  frames: frames.map(({ index, position, sha256 }) => `${index} at ${position}: ${sha256}`),
});

describe('a row', () => {
  const questions: Question[] = [];
  let base: Map<number, Row>;

  function expectSame(rows: Map<number, Row>, count = base.size): void {
    expect(rows.size).toBe(count);
    for (const [row, { logProbs, ...found }] of rows) {
      const { logProbs: expected, ...same } = base.get(row)!;
      expect(found, `row ${row}`).toEqual(same);
      const difference = logProbs.reduce((max, x, i) => Math.max(max, Math.abs(x - expected[i]!)), 0);
      expect(difference, `log-probs of row ${row}`).toBeLessThanOrEqual(1e-5);
    }
  }

  beforeAll(async () => {
    expect((await runCommand(['data', 'synth', '--config', CONFIG])).code).toBe(0);
    const { config } = loadConfig({ file: CONFIG, overrides: [] });
    const samples = await readEvaluationRows(join(root, 'data/synth/7/train.jsonl'), config, () => {});
    for (const [i, sample] of samples.slice(0, 4).entries()) questions.push({ sample, first: 4 * i, count: 4 });
    base = await rollOut(groupsOf(questions, 4), { slots: 4 });
  });

  it('is worth comparing: different rows, with looks in later turns', () => {
    expect(base.size).toBe(16);
    const rows = [...base.values()];
    expect(new Set(rows.map(({ ids }) => ids.join())).size).toBeGreaterThan(8);
    expect(rows.filter(({ frames }) => frames.length > 8).length).toBeGreaterThan(4);
  });

  it('is the same in groups of one, permuted, in seven slots, with frames and environment late at random', async () => {
    const groups = createRng(11, 'permute').shuffled(groupsOf(questions, 1));
    expectSame(await rollOut(groups, { slots: 7, delays: 1 }));
  });

  it('is the same in groups of two, on two workers of three slots, with other delays', async () => {
    const groups = createRng(12, 'permute').shuffled(groupsOf(questions, 2));
    expectSame(await rollOut(groups, { slots: 3, workers: 2, delays: 2 }));
  });

  it('is the same in a batch of its question alone, in one slot', async () => {
    expectSame(await rollOut(groupsOf(questions.slice(2, 3), 4), { slots: 1, delays: 3 }), 4);
  });
});

describe('the same configuration and seed', () => {
  it('give the same weights, however long frames and environments take', async () => {
    const train = async (name: string, delays: number) => {
      const dir = join(runs, name);
      const { code, lines } = await runCommand(
        [
          ...['train', '--config', CONFIG, `trainer.default_local_dir=${dir}`, LATE, 'trainer.n_gpus_per_node=2'],
          ...['actor_rollout_ref.rollout.n=4', 'trainer.val_before_train=false', 'data.val_max_samples=1'],
        ],
        { env: { DELAY_SEED: String(delays) } },
      );
      expect(code, lines.slice(-5).join('\n')).toBe(0);
      return { weights: checkpointHashes(dir, 2), metrics: metricsOf(dir), trajectories: trajectoriesOf(dir) };
    };
    const first = await train('first', 1);
    expect(await train('second', 2)).toEqual(first);
    expect(first.metrics.map((line) => line['actor/grad_norm']! > 0)).toEqual([true, true]);
  });
});

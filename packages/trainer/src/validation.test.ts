import type { Group, Trajectory } from '@frame-thinker/core';
import type { PolicyWorker } from '@frame-thinker/worker-pool';
import { expect, it } from 'vitest';
import { validate } from './validation.ts';

const sample = (uid: string) => ({ uid, prompt: [], dataSource: 'films', groundTruth: 'A', extraInfo: {} });

it('counts episodes that could not be scored, by cause, and as wrong', async () => {
  const worker: Pick<PolicyWorker, 'rollout'> = {
    async *rollout(groups: readonly Group[]) {
      for (const { sample: row, n } of groups)
        yield Array.from(
          { length: n },
          (_, i): Trajectory => ({
            ...{ uid: row.uid, sample: i, step: 0, ids: new Int32Array(2), mask: new Uint8Array(2) },
            ...{ logProbs: new Float32Array(2), promptLength: 1, frames: [], turns: [], toolCalls: 0 },
            end: row.uid === 'gone' ? 'decode_error' : 'answer',
          }),
        );
    },
  };
  const { metrics, summary } = await validate({
    worker: worker as PolicyWorker,
    samples: [sample('there'), sample('gone')],
    n: 2,
    sampling: { temperature: 1, topP: 1, topK: -1, doSample: true },
    batchSize: 2,
    score: async ({ group, trajectories }) => ({
      group,
      members: trajectories.map((trajectory) =>
        trajectory.end === 'answer'
          ? { trajectory, text: '', reward: { total: 1.5, acc: 1, format: 0.5, other: 0, rules: [], extras: {} } }
          : { trajectory, text: '', error: trajectory.end },
      ),
    }),
  });
  expect(summary).toMatchObject({ accuracy: 0.5, valid: 0.5, samples: 4, errors: { decode_error: 2 } });
  expect(metrics['val-aux/films/error/decode_error']).toBe(2);
});

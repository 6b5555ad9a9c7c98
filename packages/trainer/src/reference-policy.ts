/** @file What forward passes tell about the rows of a step: old log-probs, those of the frozen reference policy, and the KL penalty. */
import { applyKlPenalty, type KlController } from '@frame-thinker/algorithms';
import type { ForwardOptions, PolicyWorker, ScoreOptions } from '@frame-thinker/worker-pool';
import { type MicroBatchOptions, microBatches } from './micro-batches.ts';
import { RolloutDifference } from './rollout-difference.ts';
import type { Metrics } from './tracker.ts';
import { type CountedGroup, type CountedRow, mapGroups, response, responseMask } from './training-batch.ts';

interface Measured {
  groups: CountedGroup[];
  metrics: Metrics;
}

type Batched<Options> = Options & { batches: MicroBatchOptions };

/** Log-probs (and what else is asked for) of all rows, in order. */
async function scoresOf(
  worker: PolicyWorker,
  groups: readonly CountedGroup[],
  { name, batches, ...options }: Batched<ForwardOptions> & { name: string },
): Promise<{ logProbs: Float32Array[]; sumPiSquared: Float32Array[] }> {
  const logProbs = new Map<CountedRow, Float32Array>();
  const sumPiSquared = new Map<CountedRow, Float32Array>();
  await Promise.all(
    microBatches(groups, batches).map(async (rows, i) => {
      const trajectories = rows.map(({ trajectory }) => trajectory);
      const scores = await worker.forward({ id: `${name}:${i}:${trajectories[0]!.uid}`, trajectories }, options);
      for (const [k, row] of rows.entries()) {
        logProbs.set(row, scores.logProbs[k]!);
        if (scores.sumPiSquared) sumPiSquared.set(row, scores.sumPiSquared[k]!);
      }
    }),
  );
  const rows = groups.flatMap((group) => group.rows);
  return {
    logProbs: rows.map((row) => logProbs.get(row)!),
    sumPiSquared: rows.flatMap((row) => sumPiSquared.get(row) ?? []),
  };
}

/**
 * A forward pass of the policy before its update: how far the rollout's own log-probs are from it, and what is asked for.
 * @param recompute its log-probs are the old ones from here on (config: recompute_log_prob)
 */
export async function withOldLogProbs(
  groups: readonly CountedGroup[],
  worker: PolicyWorker,
  { recompute, ...options }: Batched<ForwardOptions> & { recompute: boolean },
): Promise<Measured> {
  const { logProbs, sumPiSquared } = await scoresOf(worker, groups, { ...options, name: 'old' });
  const difference = new RolloutDifference();
  const updated = mapGroups(groups, (row, i) => {
    difference.add(row.trajectory, logProbs[i]!);
    return {
      ...row,
      ...(recompute ? { oldLogProbs: logProbs[i]! } : {}),
      ...(sumPiSquared[i] ? { sumPiSquared: sumPiSquared[i] } : {}),
    };
  });
  return { groups: updated, metrics: difference.metrics() };
}

/** Log-probs of the frozen reference policy. */
export async function withRefLogProbs(
  groups: readonly CountedGroup[],
  reference: PolicyWorker,
  options: Batched<ScoreOptions>,
): Promise<CountedGroup[]> {
  const { logProbs } = await scoresOf(reference, groups, { ...options, name: 'ref' });
  return mapGroups(groups, (row, i) => ({ ...row, refLogProbs: logProbs[i]! }));
}

/** Takes the KL from the reference policy out of the rewards; the controller moves by what was measured. */
export function withKlPenalty(
  groups: readonly CountedGroup[],
  { kind, controller }: { kind: string; controller: KlController },
): Measured {
  const rows = groups.flatMap((group) => group.rows);
  if (rows.length === 0) return { groups: [...groups], metrics: {} };
  const { tokenLevelRewards, metrics } = applyKlPenalty({
    tokenLevelScores: rows.map(({ rewards }) => rewards),
    oldLogProbs: rows.map((row) => response(row.trajectory, row.oldLogProbs)),
    refLogProb: rows.map((row) => response(row.trajectory, row.refLogProbs!)),
    mask: rows.map(responseMask),
    kind,
    controller,
  });
  return { groups: mapGroups(groups, (row, i) => ({ ...row, rewards: tokenLevelRewards[i]! })), metrics };
}

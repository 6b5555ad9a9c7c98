/** @file What forward passes tell about the rows of a step: old log-probs, those of the frozen reference policy, and the KL penalty. */
import { applyKlPenalty, type KlController } from '@frame-thinker/algorithms';
import type { PolicyWorker, ScoreOptions } from '@frame-thinker/worker-pool';
import { RolloutDifference } from './rollout-difference.ts';
import type { Metrics } from './tracker.ts';
import { type CountedGroup, mapGroups, response, responseMask } from './training-batch.ts';

interface Measured {
  groups: CountedGroup[];
  metrics: Metrics;
}

/** Log-probs of all rows, one question in a batch, in order. */
async function logProbsOf(
  worker: PolicyWorker,
  groups: readonly CountedGroup[],
  { name, ...options }: ScoreOptions & { name: string },
): Promise<Float32Array[]> {
  const all: Float32Array[] = [];
  for (const { rows } of groups) {
    if (rows.length === 0) continue;
    const trajectories = rows.map(({ trajectory }) => trajectory);
    const { logProbs } = await worker.forward({ id: `${name}:${trajectories[0]!.uid}`, trajectories }, options);
    all.push(...logProbs);
  }
  return all;
}

/** Old log-probs from a forward pass (config: recompute_log_prob), and how far the rollout's own are from them. */
export async function withOldLogProbs(
  groups: readonly CountedGroup[],
  worker: PolicyWorker,
  options: ScoreOptions,
): Promise<Measured> {
  const logProbs = await logProbsOf(worker, groups, { ...options, name: 'old' });
  const difference = new RolloutDifference();
  const updated = mapGroups(groups, (row, i) => {
    difference.add(row.trajectory, logProbs[i]!);
    return { ...row, oldLogProbs: logProbs[i]! };
  });
  return { groups: updated, metrics: difference.metrics() };
}

/** Log-probs of the frozen reference policy. */
export async function withRefLogProbs(
  groups: readonly CountedGroup[],
  reference: PolicyWorker,
  options: ScoreOptions,
): Promise<CountedGroup[]> {
  const logProbs = await logProbsOf(reference, groups, { ...options, name: 'ref' });
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

/** @file What forward passes tell about the rows of a step: old log-probs, those of the frozen reference policy, and the KL penalty. */
import { applyKlPenalty, type KlController } from '@frame-thinker/algorithms';
import type { ForwardOptions, PolicyWorker, ScoreOptions } from '@frame-thinker/worker-pool';
import { RolloutDifference } from './rollout-difference.ts';
import type { Metrics } from './tracker.ts';
import { type CountedGroup, mapGroups, response, responseMask } from './training-batch.ts';

interface Measured {
  groups: CountedGroup[];
  metrics: Metrics;
}

/** Log-probs (and what else is asked for) of all rows, one question in a batch, in order. */
async function scoresOf(
  worker: PolicyWorker,
  groups: readonly CountedGroup[],
  { name, ...options }: ForwardOptions & { name: string },
): Promise<{ logProbs: Float32Array[]; sumPiSquared: Float32Array[] }> {
  const all: Awaited<ReturnType<typeof scoresOf>> = { logProbs: [], sumPiSquared: [] };
  for (const { rows } of groups) {
    if (rows.length === 0) continue;
    const trajectories = rows.map(({ trajectory }) => trajectory);
    const scores = await worker.forward({ id: `${name}:${trajectories[0]!.uid}`, trajectories }, options);
    all.logProbs.push(...scores.logProbs);
    all.sumPiSquared.push(...(scores.sumPiSquared ?? []));
  }
  return all;
}

/**
 * A forward pass of the policy before its update: how far the rollout's own log-probs are from it, and what is asked for.
 * @param recompute its log-probs are the old ones from here on (config: recompute_log_prob)
 */
export async function withOldLogProbs(
  groups: readonly CountedGroup[],
  worker: PolicyWorker,
  { recompute, ...options }: ForwardOptions & { recompute: boolean },
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
  options: ScoreOptions,
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

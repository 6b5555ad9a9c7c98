/** @file ReMax's baselines: the reward of one greedy answer to each question. */
import type { Group, SamplingOptions } from '@frame-thinker/core';
import type { PolicyWorker } from '@frame-thinker/worker-pool';
import { type RolledGroup, rolloutGroups } from './rollout-groups.ts';
import { counted, type ScoredGroup } from './scored-groups.ts';

/** Baselines by question; a question whose greedy answer has no reward is not in the map. */
export async function greedyBaselines(
  worker: PolicyWorker,
  asked: readonly Group[],
  { sampling, score }: { sampling: SamplingOptions; score: (rolled: RolledGroup) => Promise<ScoredGroup> },
): Promise<Map<string, number>> {
  const single = asked.map((group) => ({ ...group, n: 1 }));
  const rolled = await rolloutGroups(worker, single, { sampling: { ...sampling, doSample: false } });
  const scored = counted(await Promise.all(rolled.map(score)));
  return new Map(scored.map(({ trajectory, reward }) => [trajectory.uid, reward.total]));
}

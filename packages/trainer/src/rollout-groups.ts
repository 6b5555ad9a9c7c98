/** @file Rolls questions out on a worker and brings the trajectories back in the order of the questions. */
import { type Group, InvariantError, type SamplingOptions, type Trajectory } from '@frame-thinker/core';
import type { PolicyWorker } from '@frame-thinker/worker-pool';

export interface RolledGroup {
  group: Group;
  trajectories: Trajectory[];
}

/** @param onGroup called as each group finishes, with how many trajectories are done */
export async function rolloutGroups(
  worker: PolicyWorker,
  groups: readonly Group[],
  { sampling, onGroup }: { sampling: SamplingOptions; onGroup?: ((done: number) => void) | undefined },
): Promise<RolledGroup[]> {
  const found = new Map<string, Trajectory[]>();
  let done = 0;
  for await (const trajectories of worker.rollout(groups, sampling)) {
    const uid = trajectories[0]?.uid;
    if (uid === undefined) throw new InvariantError('a worker returned a group without trajectories');
    found.set(uid, trajectories);
    done += trajectories.length;
    onGroup?.(done);
  }
  return groups.map((group) => {
    const trajectories = found.get(group.sample.uid);
    if (!trajectories || trajectories.length !== group.n)
      throw new InvariantError(
        `question ${group.sample.uid}: ${trajectories?.length ?? 0} of ${group.n} trajectories came back`,
      );
    return { group, trajectories };
  });
}

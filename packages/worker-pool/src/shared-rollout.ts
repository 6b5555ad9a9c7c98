/** @file Rollout groups shared out to the workers of a pool: a free one takes the next share, a dead one's groups go to its replacement. */
import { type Group, RunError, type SamplingOptions, type Trajectory } from '@frame-thinker/core';
import type { Members } from './members.ts';

interface SharedRollout {
  members: Members;
  groups: readonly Group[];
  sampling: SamplingOptions;
  /** Rows that one worker decodes at once. */
  slots: number;
}

/** Trajectories of each group as it finishes. @throws RunError when the workers leave one out */
export async function* sharedRollout({
  members,
  groups,
  sampling,
  slots,
}: SharedRollout): AsyncGenerator<Trajectory[]> {
  const queue: Trajectory[][] = [];
  let wake = (): void => {};
  let failure: unknown;
  const jobs = sharesOf(groups, { slots, workers: members.all.length }).map((share) =>
    members.withMember((member) => {
      const done = new Set<number>();
      return members.run(member, (remote) => {
        const left = share.map((_, i) => i).filter((i) => !done.has(i));
        const told = (group: number, trajectories: Trajectory[]): void => {
          done.add(left[group]!);
          queue.push(trajectories);
          wake();
        };
        if (left.length === 0) return Promise.resolve();
        return remote.rollout(
          left.map((i) => share[i]!),
          sampling,
          told,
        );
      });
    }),
  );
  let running = jobs.length;
  for (const job of jobs)
    job
      .catch((error: unknown) => {
        failure ??= error;
      })
      .finally(() => {
        running--;
        wake();
      });
  let given = 0;
  while (given < groups.length) {
    if (queue.length > 0) {
      given++;
      yield queue.shift()!;
      continue;
    }
    if (failure !== undefined) throw failure;
    if (running === 0)
      throw new RunError(`the workers finished ${given} of ${groups.length} groups and said nothing of the others`);
    await new Promise<void>((resolve) => {
      wake = resolve;
    });
  }
  await Promise.all(jobs);
}

/** With one worker everything is one share; with more, shares fill the slots, so that the slowest worker is not left with much. */
function sharesOf(groups: readonly Group[], { slots, workers }: { slots: number; workers: number }): Group[][] {
  if (workers === 1) return groups.length > 0 ? [[...groups]] : [];
  const shares: Group[][] = [];
  let rows = Number.POSITIVE_INFINITY;
  for (const group of groups) {
    if (rows + group.n > slots) {
      shares.push([]);
      rows = 0;
    }
    shares.at(-1)!.push(group);
    rows += group.n;
  }
  return shares;
}

/**
 * @file Which trajectories a step trains on: one batch of questions or, with DAPO's filter of groups, as many as it takes to find
 * train_batch_size questions whose trajectories differ. Everything is a function of the step and the number of batches drawn.
 */
import type { TrainConfig } from '@frame-thinker/config';
import { type Group, RunError, type Sample } from '@frame-thinker/core';
import { namedScores } from './group-advantages.ts';
import type { PhaseTimer } from './phase-timer.ts';
import type { QuestionSampler } from './question-sampler.ts';
import type { RolledGroup } from './rollout-groups.ts';
import { permuteRewards, type ScoredGroup } from './scored-groups.ts';
import type { Metrics } from './tracker.ts';

export interface GenerationOptions {
  config: TrainConfig;
  samples: readonly Sample[];
  sampler: QuestionSampler;
  step: number;
  timer: PhaseTimer;
  videosReady: (samples: readonly Sample[]) => Promise<void>;
  rollOut: (asked: readonly Group[]) => Promise<RolledGroup[]>;
  score: (rolled: RolledGroup) => Promise<ScoredGroup>;
  interrupted: () => boolean;
  print: (line: string) => void;
}

export interface Generation {
  /** What is trained on. */
  groups: ScoredGroup[];
  /** False: the filter kept no question, and `groups` are some that it left out. */
  teaches: boolean;
  /** What the filter left out. */
  filtered: ScoredGroup[];
  /** Batches drawn. */
  batches: number;
  metrics: Metrics;
}

/** Whether the trajectories of a group differ in the metric; one alone does not. */
function differs({ members }: ScoredGroup, metric: string): boolean {
  const key = ['score', 'seq_reward', 'seq_final_reward'].includes(metric) ? 'total' : metric;
  const scored = members.flatMap(({ trajectory, reward }) => (reward ? [{ trajectory, reward }] : []));
  const values = namedScores(scored, { keys: [key], setting: 'algorithm.filter_groups.metric' })[key]!;
  return values.some((value) => value !== values[0]);
}

/**
 * @param drawn batches that earlier steps drew
 * @returns undefined when it was interrupted
 */
export async function generate(drawn: number, options: GenerationOptions): Promise<Generation | undefined> {
  const { config, samples, sampler, step, timer, score, interrupted } = options;
  const { filter_groups: filter } = config.algorithm;
  const { n } = config.actor_rollout_ref.rollout;
  const wanted = config.data.train_batch_size;
  const groups: ScoredGroup[] = [];
  const filtered: ScoredGroup[] = [];
  let batches = 0;
  for (;;) {
    const questions = sampler.rowsOf(drawn + batches + 1).map((row) => samples[row]!);
    await timer.timed('wait_for_videos', () => options.videosReady(questions));
    if (interrupted()) return undefined;
    const first = batches * questions.length;
    const asked = questions.map((sample, i) => ({ sample, position: first + i, n, step }));
    const rolled = await timer.timed('gen', () => options.rollOut(asked));
    const scored = await timer.timed('reward', () => Promise.all(rolled.map(score)));
    if (interrupted()) return undefined;
    const found = config.reward.permute
      ? permuteRewards(scored, { seed: config.trainer.seed, step, batch: batches })
      : scored;
    refuseUnreadable(found, step);
    batches++;
    if (!filter.enable) return { groups: found, filtered: [], batches, metrics: {}, teaches: true };
    for (const group of found)
      if (groups.length < wanted && differs(group, filter.metric)) groups.push(group);
      else filtered.push(group);
    if (groups.length === wanted || batches === filter.max_num_gen_batches) break;
  }
  const [kept, all] = [groups.length, groups.length + filtered.length];
  const short = kept < wanted ? `, fewer than data.train_batch_size = ${wanted} (max_num_gen_batches)` : '';
  options.print(
    `  step ${step}: ${kept} of ${all} questions kept by ${filter.metric} in ${batches} batch${batches === 1 ? '' : 'es'}${short}`,
  );
  const metrics = { 'train/num_gen_batches': batches, 'train/num_filtered_groups': all - kept };
  // With none, the last batch stands for the step: its figures say why, and nothing is learnt from it.
  if (kept === 0) groups.push(...filtered.splice(-wanted));
  return { groups, filtered, batches, metrics, teaches: kept > 0 };
}

/** A batch in which no episode could read its video is no training. */
function refuseUnreadable(groups: readonly ScoredGroup[], step: number): void {
  const members = groups.flatMap((group) => group.members);
  if (!members.every(({ trajectory }) => trajectory.end === 'decode_error')) return;
  const [{ uid = '', reason = '' } = {}] = members.flatMap(({ trajectory: { uid, turns } }) =>
    turns.flatMap(({ error }) => (error === undefined ? [] : [{ uid, reason: error }])),
  );
  throw new RunError(
    `step ${step}: none of the ${members.length} episodes could read its video or images${reason ? ` (row ${uid}: ${reason})` : ''}; check the files that the rows name`,
  );
}

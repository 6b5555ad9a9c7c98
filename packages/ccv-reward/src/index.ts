/** @file The rewards: `ccv` (on the structured record), `ccv-v11` (the original, on text), and plug-ins. */
import type { Reward, Sample, Trajectory } from '@frame-thinker/core';

const soon = (): never => {
  throw new Error('ccv-reward: not written yet');
};

/** Bonuses of a valid, right answer. */
export interface Bonuses {
  /** A time call whose time the question asks about gave a frame > 0. Default 0.5. */
  timeBonus?: number;
  /** Any choice of frames was made. Default 0.02. */
  choiceBonus?: number;
}
export interface CcvV11Input extends Bonuses {
  solutionStr: string;
  groundTruth: unknown;
  extraInfo: unknown;
}
/** The original reward on the decoded response text. Where the original raises: score 0, rule `error:<Exception>`. */
export const ccvV11 = (_: CcvV11Input): Reward => soon();

export interface CcvOptions extends Bonuses {
  /** Frames a look shows in this sample's regime. */
  frames: number;
}
/** What `ccv` reads of a trajectory and of a sample. */
export type CcvTrajectory = Pick<Trajectory, 'turns' | 'end'>;
export type CcvSample = Pick<Sample, 'groundTruth' | 'totalFrames' | 'extraInfo'>;
/** The same rules on the environment's record; no text of the environment is read from the transcript. */
export const ccv = (_trajectory: CcvTrajectory, _sample: CcvSample, _options: CcvOptions): Reward => soon();

/** An error in a reward function: that trajectory is left out and counted, as an environment error is. */
export class RewardError extends Error {
  override name = 'RewardError';
}
export type RewardSpec = 'ccv' | 'ccv-v11' | { path: string; name?: string; reward_kwargs?: Record<string, unknown> };
export type RewardFunction = (trajectory: Trajectory, sample: Sample, solutionStr: string) => Promise<Reward>;
export interface RewardsOptions extends Bonuses {
  /** `reward.default`; default `ccv`. */
  default?: RewardSpec;
  /** `reward.by_data_source`. */
  byDataSource?: Record<string, RewardSpec>;
  /** `custom_reward_function`; takes the default's place when its path is given. */
  customRewardFunction?: { path: string | null; name?: string; reward_kwargs?: Record<string, unknown> };
  /** Frames a look shows, by sample: chooseRegime's in agent-env. */
  framesOf: (sample: Sample) => number;
  /** Folder that relative paths start from; default the working folder. */
  baseDir?: string;
  /** Called once per data source that has no entry of its own. */
  onUnknownSource?: (source: string) => void;
}
/** Loads every reward named, once. `score` throws RewardError when a reward fails. @throws InputError on a bad path or module. */
export const createRewards = (_: RewardsOptions): Promise<{ score: RewardFunction }> => soon();

/** Loads one reward plug-in: a Node module that exports `name` (default compute_score). */
export const loadReward = (_: {
  path: string;
  name?: string;
  reward_kwargs?: Record<string, unknown>;
  baseDir?: string;
}): Promise<RewardFunction> => soon();

/** Rows of `pnpm score`: {solution_str, ground_truth, extra_info}, or a run folder's trajectory lines. */
export const scoreRows = (
  _rows: readonly unknown[],
  _options: Omit<RewardsOptions, 'framesOf'> & { reward: RewardSpec; framesOf?: (sample: Sample) => number },
): Promise<(Reward & { error?: string })[]> => soon();

/** @file Which reward scores which trajectory. */
import { InputError, messageOf, type Sample } from '@frame-thinker/core';
import { ccv } from './ccv.ts';
import { type Bonuses, ccvV11 } from './ccv-v11.ts';
import { loadReward, type PlugIn, RewardError, type RewardFunction } from './plug-in.ts';

export type RewardSpec = 'ccv' | 'ccv-v11' | PlugIn;

export interface RewardsOptions extends Bonuses {
  /** `reward.default`; default `ccv`. */
  default?: RewardSpec;
  /** `reward.by_data_source`. */
  byDataSource?: Record<string, RewardSpec>;
  /** `custom_reward_function`: takes the default's place when its path is given. */
  customRewardFunction?: {
    path: string | null;
    name?: string | undefined;
    reward_kwargs?: Record<string, unknown> | undefined;
  };
  /** Frames a look shows, by sample: the `frames` of its regime. */
  framesOf: (sample: Sample) => number;
  /** Folder that relative plug-in paths start from; default the working folder. */
  baseDir?: string;
  /** Called once per data source that has no entry, when some sources have one. */
  onUnknownSource?: (source: string) => void;
}

async function rewardFunction(spec: RewardSpec, options: RewardsOptions): Promise<RewardFunction> {
  const bonuses: Bonuses = {
    ...(options.timeBonus !== undefined && { timeBonus: options.timeBonus }),
    ...(options.choiceBonus !== undefined && { choiceBonus: options.choiceBonus }),
  };
  if (spec === 'ccv')
    return async (trajectory, sample) => ccv(trajectory, sample, { ...bonuses, frames: options.framesOf(sample) });
  if (spec === 'ccv-v11')
    return async (_, { groundTruth, extraInfo }, solutionStr) =>
      ccvV11({ ...bonuses, solutionStr, groundTruth, extraInfo });
  if (typeof spec === 'string')
    throw new InputError(`reward "${spec}" is not known; known are ccv, ccv-v11, and {path, name, reward_kwargs}`);
  return loadReward(spec, options.baseDir);
}

/**
 * Loads every reward that is named, once. `score` throws RewardError when a reward fails on a trajectory.
 * @throws InputError when a plug-in cannot be loaded.
 */
export async function createRewards(options: RewardsOptions): Promise<{ score: RewardFunction }> {
  const custom = options.customRewardFunction;
  const fallback = custom?.path ? { ...custom, path: custom.path } : (options.default ?? 'ccv');
  const byDefault = await rewardFunction(fallback, options);
  const bySource = new Map<string, RewardFunction>();
  for (const [source, spec] of Object.entries(options.byDataSource ?? {}))
    bySource.set(source, await rewardFunction(spec, options));
  const said = new Set<string>();
  return {
    async score(trajectory, sample, solutionStr) {
      const own = bySource.get(sample.dataSource);
      if (!own && bySource.size > 0 && !said.has(sample.dataSource)) {
        said.add(sample.dataSource);
        options.onUnknownSource?.(sample.dataSource);
      }
      try {
        return await (own ?? byDefault)(trajectory, sample, solutionStr);
      } catch (error) {
        if (error instanceof RewardError) throw error;
        throw new RewardError(`reward of ${sample.uid}: ${messageOf(error)}`, { cause: error });
      }
    },
  };
}

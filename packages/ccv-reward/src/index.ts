export { type CcvOptions, type CcvSample, type CcvTrajectory, ccv } from './ccv.ts';
export { type Bonuses, type CcvV11Input, ccvV11 } from './ccv-v11.ts';
export { loadReward, type PlugIn, type PlugInInput, RewardError, type RewardFunction } from './plug-in.ts';
export { createRewards, type RewardSpec, type RewardsOptions } from './rewards.ts';
export { type ScoredRow, type ScoreOptions, scoreRows } from './score-rows.ts';

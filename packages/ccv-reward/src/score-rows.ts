/** @file Scoring what was written down: rows of texts, or a run folder's trajectory lines. */
import { InputError, type Reward, type Sample, type Trajectory } from '@frame-thinker/core';
import { RewardError } from './plug-in.ts';
import { createRewards, type RewardSpec, type RewardsOptions } from './rewards.ts';

export interface ScoreOptions extends Omit<RewardsOptions, 'default' | 'byDataSource' | 'customRewardFunction'> {
  reward: RewardSpec;
}

/** A row's reward; `error` when the reward function failed on it (the scores are 0 then). */
export type ScoredRow = Reward & { error?: string };

const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

function sampleOf(row: Record<string, unknown>, uid: string): Sample {
  const extraInfo = isRecord(row.extra_info) ? row.extra_info : {};
  const total = extraInfo.total_frames;
  return {
    uid,
    prompt: [],
    dataSource: typeof row.data_source === 'string' ? row.data_source : '',
    // ccv-v11 compares as Python does: a truth that is not a text stays what it is.
    groundTruth: row.ground_truth as string,
    // ccv-v11 names what is wrong with an extra_info that is not a mapping.
    extraInfo: (row.extra_info === undefined ? {} : row.extra_info) as Record<string, unknown>,
    ...(typeof total === 'number' && { totalFrames: total }),
  };
}

function trajectoryOf(row: Record<string, unknown>, uid: string): Trajectory {
  const empty = { ids: new Int32Array(), mask: new Uint8Array(), logProbs: new Float32Array(), promptLength: 0 };
  const turns = (Array.isArray(row.turns) ? row.turns : []) as Trajectory['turns'];
  return {
    ...empty,
    uid,
    sample: typeof row.sample === 'number' ? row.sample : 0,
    step: typeof row.step === 'number' ? row.step : 0,
    frames: (Array.isArray(row.frames) ? row.frames : []) as Trajectory['frames'],
    turns,
    end: (typeof row.end === 'string' ? row.end : 'answer') as Trajectory['end'],
    toolCalls: turns.filter((turn) => turn.action && turn.action.kind !== 'answer').length,
  };
}

/**
 * Scores rows {solution_str, ground_truth, extra_info}, or trajectory lines (with `turns`, and `text` for solution_str).
 * @throws InputError naming the row (from 1) when it is neither, or when `ccv` is given a text without its record.
 */
export async function scoreRows(rows: readonly unknown[], { reward, ...options }: ScoreOptions): Promise<ScoredRow[]> {
  const { score } = await createRewards({ ...options, default: reward });
  const scored: ScoredRow[] = [];
  for (const [i, row] of rows.entries()) {
    const where = `row ${i + 1}`;
    if (!isRecord(row)) throw new InputError(`${where}: not an object`);
    const text = row.solution_str ?? row.text;
    if (reward === 'ccv' && !Array.isArray(row.turns))
      throw new InputError(
        `${where}: ccv scores the environment's record, and there are no turns; score plain texts with ccv-v11`,
      );
    if (reward !== 'ccv' && typeof text !== 'string') throw new InputError(`${where}: has no solution_str`);
    if (!('ground_truth' in row)) throw new InputError(`${where}: has no ground_truth`);
    const uid = typeof row.uid === 'string' ? row.uid : where;
    try {
      scored.push(await score(trajectoryOf(row, uid), sampleOf(row, uid), typeof text === 'string' ? text : ''));
    } catch (error) {
      if (!(error instanceof RewardError)) throw error;
      scored.push({ total: 0, acc: 0, format: 0, other: 0, rules: [], extras: {}, error: error.message });
    }
  }
  return scored;
}

/** @file Reward plug-ins: a user's Node module. */
import { existsSync } from 'node:fs';
import { resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { inspect } from 'node:util';
import { InputError, messageOf, type Reward, type Sample, type Trajectory } from '@frame-thinker/core';

/** An error in a reward function: that trajectory is left out and counted, as an environment error is. */
export class RewardError extends Error {
  override name = 'RewardError';
}

/** Scores one trajectory; `solutionStr` is its decoded response. @throws RewardError */
export type RewardFunction = (trajectory: Trajectory, sample: Sample, solutionStr: string) => Promise<Reward>;

export interface PlugIn {
  path: string;
  /** Exported function; default `compute_score`. */
  name?: string | undefined;
  reward_kwargs?: Record<string, unknown> | undefined;
}

/** What a plug-in gets first; its second argument is `reward_kwargs`. */
export interface PlugInInput {
  data_source: string;
  solution_str: string;
  ground_truth: string;
  extra_info: Record<string, unknown>;
  trajectory: Trajectory;
}

const isNumber = (value: unknown): value is number => typeof value === 'number' && Number.isFinite(value);

/** A plug-in's result as a reward: a number, `{score, …extras}`, or `[total, acc, format, other]`. @throws RewardError */
export function rewardOf(result: unknown, where: string): Reward {
  const reward = (total: number, acc = total, format = 0, other = 0, extras: Record<string, number> = {}): Reward => ({
    total,
    acc,
    format,
    other,
    rules: [],
    extras,
  });
  if (isNumber(result)) return reward(result);
  if (Array.isArray(result) && result.length === 4 && result.every(isNumber)) {
    const [total, acc, format, other] = result as [number, number, number, number];
    return reward(total, acc, format, other);
  }
  if (typeof result === 'object' && result !== null && !Array.isArray(result)) {
    const { score, acc, format, other, ...extras } = result as Record<string, unknown>;
    const bad = Object.entries({ acc, format, other, ...extras }).find(
      ([, value]) => value !== undefined && !isNumber(value) && typeof value !== 'boolean',
    );
    if (bad) throw new RewardError(`${where}: ${bad[0]} is ${JSON.stringify(bad[1])}, not a finite number`);
    const number = (value: unknown): number | undefined => (value === undefined ? undefined : Number(value));
    const numbers = Object.fromEntries(Object.entries(extras).map(([key, value]) => [key, Number(value)]));
    if (isNumber(score)) return reward(score, number(acc), number(format), number(other), numbers);
  }
  throw new RewardError(
    `${where}: returned ${inspect(result, { breakLength: Number.POSITIVE_INFINITY })}; a finite number, {score, …}, or [total, acc, format, other] is needed`,
  );
}

/** Loads a reward plug-in once. @throws InputError: a `.py` file, no such file, no such export. */
export async function loadReward(
  { path, name = 'compute_score', reward_kwargs = {} }: PlugIn,
  baseDir = process.cwd(),
): Promise<RewardFunction> {
  const where = `reward ${path}`;
  if (path.endsWith('.py'))
    throw new InputError(
      `${where}: rewards are Node modules, Python is not run; write a .js, .mjs or .ts module that exports ${name}`,
    );
  const file = resolve(baseDir, path);
  if (!existsSync(file)) throw new InputError(`${where}: no such file (${file})`);
  let module: Record<string, unknown>;
  try {
    module = await import(pathToFileURL(file).href);
  } catch (error) {
    throw new InputError(`${where}: cannot be loaded: ${messageOf(error)}`);
  }
  const compute = module[name];
  if (typeof compute !== 'function')
    throw new InputError(
      `${where}: exports no function ${name}; it exports ${Object.keys(module).join(', ') || 'nothing'}`,
    );
  return async (trajectory, sample, solutionStr) => {
    const input: PlugInInput = {
      data_source: sample.dataSource,
      solution_str: solutionStr,
      ground_truth: sample.groundTruth,
      extra_info: sample.extraInfo,
      trajectory,
    };
    let result: unknown;
    try {
      result = await compute(input, reward_kwargs);
    } catch (error) {
      throw new RewardError(`${where}: ${name} failed on ${sample.uid}: ${messageOf(error)}`, { cause: error });
    }
    return rewardOf(result, `${where}: ${name} on ${sample.uid}`);
  };
}

/** @file verl's validation metrics: means, and over several samples best, worst and majority of n by bootstrap. */
import { majorityValue } from '@frame-thinker/algorithms';
import { createRng } from '@frame-thinker/core';
import type { ScoredGroup, ScoredTrajectory } from './scored-groups.ts';
import type { Metrics } from './tracker.ts';

/** Draws of n samples with replacement, and their seed: verl's figures, by this project's random numbers. */
const DRAWS = 1000;
const SEED = 42;

const mean = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0) / Math.max(1, values.length);
/** Of the population, as numpy's. */
function deviation(values: readonly number[]): number {
  const middle = mean(values);
  return Math.sqrt(mean(values.map((x) => (x - middle) ** 2)));
}

/** 2, 4, 8, … below N, then N. */
function drawSizes(samples: number): number[] {
  const sizes: number[] = [];
  for (let n = 2; n < samples; n *= 2) sizes.push(n);
  return samples > 1 ? [...sizes, samples] : [];
}

interface Valued {
  value: number;
  /** What the sample voted for. */
  vote: string;
}

/** Draws of n numbers below N: the same for every question and variable, as verl's. */
function drawsOf(samples: number, n: number): number[][] {
  const rng = createRng(SEED, 'permute');
  return Array.from({ length: DRAWS }, () => Array.from({ length: n }, () => rng.below(samples)));
}

/** Figures of one variable over the samples of one question, by the part of the name behind it. */
function ofQuestion(samples: readonly Valued[], draws: ReadonlyMap<number, number[][]>): Record<string, number> {
  const values = samples.map(({ value }) => value);
  const figures: Record<string, number> = { [`mean@${samples.length}`]: mean(values) };
  if (samples.length < 2) return figures;
  figures[`std@${samples.length}`] = deviation(values);
  for (const [n, picks] of draws) {
    const best: number[] = [];
    const worst: number[] = [];
    const majority: number[] = [];
    for (const pick of picks) {
      const drawn = pick.map((i) => samples[i]!);
      const of = drawn.map(({ value }) => value);
      best.push(Math.max(...of));
      worst.push(Math.min(...of));
      majority.push(majorityValue(drawn));
    }
    for (const [name, drawn] of Object.entries({ best, worst, maj: majority })) {
      figures[`${name}@${n}/mean`] = mean(drawn);
      figures[`${name}@${n}/std`] = deviation(drawn);
    }
  }
  return figures;
}

/** What is measured of an episode; one without a reward counts as 0. */
const VARIABLES: Readonly<Record<string, (member: ScoredTrajectory) => number>> = {
  acc: ({ reward }) => reward?.acc ?? 0,
  reward: ({ reward }) => reward?.total ?? 0,
  format: ({ reward }) => reward?.format ?? 0,
};

function voteOf({ trajectory, reward }: ScoredTrajectory): string {
  const action = reward && trajectory.turns.findLast((turn) => turn.action !== undefined)?.action;
  return action?.kind === 'answer' ? action.answer.trim() : '';
}

/** Figures of all samples are val-core, for accuracy (verl's choice) and for the reward. */
const isCore = (variable: string, figure: string, n: number): boolean =>
  variable !== 'format' && new RegExp(`^(?:mean|best|maj)@${n}(?:/|$)`).test(figure);

/**
 * val-core/<source>/<variable>/{mean@N, best@N/…, maj@N/…} and val-aux for the rest: figures of each question, then the mean over
 * questions. `n`: samples of each question.
 */
export function questionMetrics(source: string, groups: readonly ScoredGroup[], n: number): Metrics {
  const metrics: Metrics = {};
  const draws = new Map(drawSizes(n).map((size) => [size, drawsOf(n, size)]));
  for (const [variable, measure] of Object.entries(VARIABLES)) {
    const sums: Record<string, number> = {};
    for (const { members } of groups) {
      const samples = members.map((member) => ({ value: measure(member), vote: voteOf(member) }));
      for (const [figure, value] of Object.entries(ofQuestion(samples, draws)))
        sums[figure] = (sums[figure] ?? 0) + value / groups.length;
    }
    for (const [figure, value] of Object.entries(sums))
      metrics[`${isCore(variable, figure, n) ? 'val-core' : 'val-aux'}/${source}/${variable}/${figure}`] = value;
  }
  return metrics;
}

/** @file Learning-rate schedules, as verl's: linear warm-up, then constant or cosine. */
import type { TrainConfig } from '@frame-thinker/config';

export interface ScheduleOptions {
  lr: number;
  warmupSteps: number;
  style: 'constant' | 'cosine';
  totalSteps: number;
  minLrRatio: number;
  numCycles: number;
}

/** verl's optim block as a schedule over so many optimizer steps. */
export function scheduleOf(
  optim: TrainConfig['actor_rollout_ref']['actor']['optim'],
  totalSteps: number,
): ScheduleOptions {
  const { lr, lr_warmup_steps: warmup, lr_warmup_steps_ratio: ratio } = optim;
  return {
    lr,
    warmupSteps: warmup >= 0 ? warmup : Math.round(ratio * totalSteps),
    style: optim.warmup_style,
    totalSteps,
    minLrRatio: optim.min_lr_ratio,
    numCycles: optim.num_cycles,
  };
}

/**
 * The rate of optimizer step `step`, from 0. Unlike the reference, the first update of a warm-up has lr / warmupSteps, not 0.
 * cosine: lr · max(min, ½(1 + cos(π · 2 · cycles · progress))) (transformers' get_cosine_schedule_with_warmup).
 */
export function learningRate(
  step: number,
  { lr, warmupSteps, style, totalSteps, minLrRatio, numCycles }: ScheduleOptions,
): number {
  if (step < warmupSteps) return (lr * (step + 1)) / warmupSteps;
  if (style === 'constant') return lr;
  const progress = (step - warmupSteps) / Math.max(1, totalSteps - warmupSteps);
  const wave = 0.5 * (1 + Math.cos(Math.PI * 2 * numCycles * progress));
  return lr * Math.max(0, minLrRatio + (1 - minLrRatio) * wave);
}

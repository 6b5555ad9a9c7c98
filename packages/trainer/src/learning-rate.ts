/** @file Learning-rate schedules, as verl's: linear warm-up, then constant or cosine. */

export interface ScheduleOptions {
  lr: number;
  warmupSteps: number;
  style: 'constant' | 'cosine';
  totalSteps: number;
  minLrRatio: number;
  numCycles: number;
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

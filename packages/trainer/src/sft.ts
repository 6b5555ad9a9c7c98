/** @file Supervised fine-tuning: weighted cross-entropy on the tokens that the policy is to write. */
import type { AdamWOptions, Interrupt } from '@frame-thinker/core';
import type { PolicyWorker } from '@frame-thinker/worker-pool';
import type { SftSource } from './sft-source.ts';
import type { Tracker } from './tracker.ts';

export interface SftOptions {
  worker: PolicyWorker;
  source: SftSource;
  /** Steps done before. */
  start: number;
  optimizer: Omit<AdamWOptions, 'lr'>;
  ban: readonly number[];
  tracker: Tracker;
  interrupt: Interrupt;
  saveFreq: number;
  save: (step: number) => Promise<void>;
}

/** loss = −Σ w · log p / Σ w over all sequences of a step. Returns the steps done. */
export async function runSft({
  worker,
  source,
  start,
  optimizer,
  ban,
  tracker,
  interrupt,
  saveFreq,
  save,
}: SftOptions): Promise<number> {
  let step = start;
  let saved = start;
  while (step < source.totalSteps && !interrupt.signal) {
    const began = performance.now();
    const micros = source.microBatches(step);
    const total = micros.flat().reduce((sum, { weights }) => sum + weights.reduce((a, b) => a + b, 0), 0);
    let loss = 0;
    let tokens = 0;
    for (const [m, rows] of micros.entries()) {
      const { logProbs } = await worker.backward(
        { id: `${step}:${m}`, trajectories: rows.map(({ row }) => row) },
        {
          dLogProbs: rows.map(({ weights }) => weights.map((w) => -w / total)),
          dEntropy: rows.map(({ weights }) => new Float32Array(weights.length)),
        },
        { temperature: 1, ban },
      );
      rows.forEach(({ weights }, i) => {
        tokens += weights.length;
        weights.forEach((w, t) => {
          if (w > 0) loss -= (w * logProbs[i]![t]!) / total;
        });
      });
    }
    const lr = source.learningRate(step);
    const { gradNorm, applied } = await worker.applyUpdate({ ...optimizer, lr });
    step++;
    const seconds = (performance.now() - began) / 1000;
    tracker.log(step, {
      'train/loss': loss,
      'train/grad_norm': gradNorm,
      'train/lr': lr,
      'train/skipped_updates': applied ? 0 : 1,
      'perf/total_num_tokens': tokens,
      'timing_s/step': seconds,
    });
    if (saveFreq > 0 && step % saveFreq === 0 && step < source.totalSteps) {
      await save(step);
      saved = step;
    }
  }
  if (saved !== step) await save(step);
  return step;
}

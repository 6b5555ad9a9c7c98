/** @file A run of supervised fine-tuning in its folder: worker, resume, steps, checkpoints, the model at the end. */
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { findLatestCheckpoint } from '@frame-thinker/checkpoint';
import { type AdamWOptions, exitCodeOf, type Interrupt } from '@frame-thinker/core';
import { workerEntry } from '@frame-thinker/policy-worker';
import { createLocalPool } from '@frame-thinker/worker-pool';
import { type RunState, resumeRun, saveRun } from './run-checkpoints.ts';
import { runSft } from './sft.ts';
import type { SftSource } from './sft-source.ts';
import { createTracker, rewindJsonl } from './tracker.ts';
import { engineLine } from './worker-setup.ts';

export interface SftRunOptions {
  /** HF folder that training starts from. */
  initial: string;
  runDir: string;
  /** HF folder to write at the end. */
  output: string;
  seed: number;
  source: SftSource;
  /** Identifies the rows and their order: a resumed run must read the same. */
  fingerprint: string;
  optimizer: Omit<AdamWOptions, 'lr'>;
  saveFreq: number;
  interrupt: Interrupt;
  print: (line: string) => void;
}

/** Resumes from the run folder's newest checkpoint. Resolves with the exit code. */
export async function runSftFolder(options: SftRunOptions): Promise<number> {
  const { initial, runDir, output, seed, source, interrupt, print } = options;
  const began = performance.now();
  const worker = await createLocalPool({
    entry: workerEntry,
    init: {
      path: initial,
      dtype: 'float32',
      seed,
      engine: { name: 'onnx', provider: 'auto', threads: availableParallelism() },
    },
    logDirectory: join(runDir, 'logs'),
  });
  print(engineLine(worker));
  try {
    const data = { seed, fingerprint: options.fingerprint };
    const latest = findLatestCheckpoint(runDir);
    const state: RunState = latest
      ? await resumeRun({ worker, dir: latest.dir, data })
      : { step: 0, optimizerSteps: 0, skippedUpdates: 0, skippedInARow: 0 };
    if (latest) print(`resuming from ${latest.dir}`);
    const metricsFile = join(runDir, 'metrics.jsonl');
    rewindJsonl(metricsFile, state.step);
    const done = await runSft({
      worker,
      source,
      start: state.step,
      optimizer: options.optimizer,
      ban: worker.capabilities.visionIds,
      tracker: createTracker({ metricsFile, eventsFile: join(runDir, 'events.jsonl'), print }),
      interrupt,
      saveFreq: options.saveFreq,
      save: async (step) => {
        await saveRun({
          worker,
          dir: runDir,
          state: { ...state, step, optimizerSteps: step },
          data,
          hfFiles: initial,
          worldSize: 1,
          keep: 2,
        });
      },
    });
    if (interrupt.signal) {
      print(`stopped at step ${done} of ${source.totalSteps} and saved; the same command goes on from there`);
      return exitCodeOf(interrupt.signal);
    }
    await worker.exportTo(output);
    print(
      `${output}: the policy after ${done} steps, ${((performance.now() - began) / 60_000).toFixed(1)} minutes; loss curve in ${metricsFile}`,
    );
    return 0;
  } finally {
    await worker.close();
  }
}

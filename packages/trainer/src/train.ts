/** @file `pnpm train`: from a configuration to a finished run. */

import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { chooseRegime } from '@frame-thinker/agent-env';
import { createRewards } from '@frame-thinker/ccv-reward';
import { checkpointStep } from '@frame-thinker/checkpoint';
import type { LoadedConfig, TrainConfig } from '@frame-thinker/config';
import { exitCodeOf, type Interrupt, listenForInterrupt } from '@frame-thinker/core';
import { loadTokenizer } from '@frame-thinker/qwen-vl';
import type { CriticWorker, PolicyWorker } from '@frame-thinker/worker-pool';
import { trainsCritic } from './critic-update.ts';
import { fit } from './fit.ts';
import { withOverlongPenalty } from './overlong-penalty.ts';
import { type ConfiguredLoss, configuredLoss } from './policy-loss.ts';
import type { RolledGroup } from './rollout-groups.ts';
import {
  checkpointToResume,
  fingerprint,
  openCheckpoint,
  type RunState,
  resumeRun,
  saveRun,
} from './run-checkpoints.ts';
import { checkResumable, writeConfig } from './run-folder.ts';
import { lockRun } from './run-lock.ts';
import { type ScoredGroup, scoreGroup } from './scored-groups.ts';
import { createTracker, lastLine, rewindJsonl, type Tracker } from './tracker.ts';
import { openTrainingData, type TrainingData } from './training-data.ts';
import { rewindTrajectories, writeTrajectories } from './trajectory-log.ts';
import { type Validation, validate } from './validation.ts';
import { engineLine, regimesOf, startCritic, startReference, startWorker } from './worker-setup.ts';

export interface TrainOptions {
  loaded: LoadedConfig;
  print: (line: string) => void;
  /** Called once the inputs are known to be good, before anything long begins. */
  onReady?: () => void;
  /** Start the policy's workers, the reference's and the critic's in place of the configured pool. */
  startWorker?: typeof startWorker;
  startReference?: typeof startReference;
  startCritic?: typeof startCritic;
}

/** What the parts of a run share. */
interface Run {
  config: TrainConfig;
  workers: number;
  dir: string;
  worker: PolicyWorker;
  /** The frozen reference policy, where a KL is used. */
  reference: PolicyWorker | undefined;
  /** Where one is trained. */
  critic: CriticWorker | undefined;
  loss: ConfiguredLoss;
  data: TrainingData;
  totalSteps: number;
  /** Checkpoint that the run goes on from. */
  resumeFrom: string | undefined;
  interrupt: Interrupt;
  print: (line: string) => void;
  decode: (ids: Int32Array) => string;
}

const percent = (x: number): string => `${(100 * x).toFixed(1)} %`;

/** How groups are scored: the configured rewards on the record, the response decoded once. */
async function groupScorer({
  config,
  decode,
  print,
}: Pick<Run, 'config' | 'decode' | 'print'>): Promise<(rolled: RolledGroup) => Promise<ScoredGroup>> {
  const regimes = regimesOf(config);
  const rewards = await createRewards({
    default: config.reward.default,
    byDataSource: config.reward.by_data_source,
    customRewardFunction: config.custom_reward_function,
    timeBonus: config.ccv.time_bonus,
    choiceBonus: config.ccv.choice_bonus,
    framesOf: ({ fps, totalFrames }) =>
      chooseRegime({ durationSeconds: fps && totalFrames ? totalFrames / fps : undefined, regimes }).frames,
    onUnknownSource: (source) =>
      print(`reward: data source ${source} is not in reward.by_data_source and takes the default`),
  });
  return async ({ group, trajectories }) =>
    withOverlongPenalty(
      await scoreGroup(group, trajectories, { score: rewards.score, decode, onError: print }),
      config,
    );
}

function describe({ accuracy, valid, frames, toolCalls, samples, errors = {} }: Validation['summary']): string {
  const failed = Object.entries(errors).map(([error, count]) => `, ${count} of them count as wrong for ${error}`);
  return `accuracy ${percent(accuracy)}, valid ${percent(valid)}, ${frames.toFixed(1)} frames and ${toolCalls.toFixed(2)} tool calls a valid answer (${samples} episodes${failed.join('')})`;
}

/** What is printed at the end: the result, where everything is, what to run next. */
function closing(run: Run, state: RunState, after: Validation['summary'] | undefined): string[] {
  const { before } = state;
  const { dir, data } = run;
  const lines = ['', `training is complete: ${state.step} steps`];
  if (before && after) {
    const { accuracy, valid, frames, toolCalls } = before;
    lines.push(
      `validation accuracy ${percent(accuracy)} → ${percent(after.accuracy)}, valid ${percent(valid)} → ${percent(after.valid)}`,
      `mean frames ${frames.toFixed(1)} → ${after.frames.toFixed(1)}, mean tool calls ${toolCalls.toFixed(2)} → ${after.toolCalls.toFixed(2)} (of valid answers)`,
    );
  } else if (after) lines.push(`validation: ${describe(after)}`);
  const merged = join(dir, 'merged');
  lines.push(
    `metrics       ${join(dir, 'metrics.jsonl')}`,
    `trajectories  ${join(dir, 'trajectories')}/`,
    `checkpoint    ${join(dir, `global_step_${state.step}`)}/`,
    `next          pnpm merge --backend fsdp --target-dir ${merged}`,
    `              pnpm infer --model ${merged}${data.testFile ? ` --dataset ${data.testFile}` : ' --dataset <rows.jsonl>'}`,
  );
  return lines;
}

/** Validation as a function of the step: rolls out, scores, writes the trajectories, says the result. */
function validator(
  run: Run,
  score: (rolled: RolledGroup) => Promise<ScoredGroup>,
): (step: number) => Promise<Validation> {
  const { config, worker, data, dir, print, decode } = run;
  const { n, do_sample, temperature, top_p, top_k } = config.actor_rollout_ref.rollout.val_kwargs;
  const exportDir = config.trainer.validation_data_dir;
  return async (step) => {
    await data.ready(data.validation);
    const validation = await validate({
      worker,
      samples: data.validation,
      n,
      sampling: { temperature: do_sample ? temperature : 0, topP: top_p, topK: top_k, doSample: do_sample },
      batchSize: config.data.val_batch_size ?? data.validation.length,
      score,
    });
    const verl = exportDir === null ? undefined : { dir: exportDir, decode };
    writeTrajectories({ dir, kind: 'val', step, groups: validation.groups, verl });
    print(`validation at step ${step}: ${describe(validation.summary)}`);
    return validation;
  };
}

/** Puts the run folder into the state of the checkpoint (or of a new run) and returns the counters to go on with. */
async function openRun(
  run: Run,
  rows: { seed: number; fingerprint: string },
): Promise<{ state: RunState; tracker: Tracker }> {
  const { config, dir, worker, critic, resumeFrom, totalSteps, print } = run;
  const changes = resumeFrom === undefined ? [] : checkResumable(dir, config);
  const state: RunState =
    resumeFrom === undefined
      ? { step: 0, optimizerSteps: 0, skippedUpdates: 0, skippedInARow: 0 }
      : await resumeRun({ worker, critic, dir: resumeFrom, data: rows });
  const kept = resumeFrom === undefined ? -1 : state.step;
  const metricsFile = join(dir, 'metrics.jsonl');
  rewindJsonl(metricsFile, kept);
  rewindTrajectories(dir, kept);
  const eventsFile = join(dir, 'events.jsonl');
  rewindJsonl(eventsFile, Number.POSITIVE_INFINITY);
  writeConfig(dir, config);
  if (resumeFrom !== undefined) {
    print(`resuming from ${resumeFrom} (step ${state.step} of ${totalSteps})`);
    for (const change of changes) print(`  changed: ${change}`);
  }
  const console = config.trainer.logger.includes('console');
  const tracker = createTracker({
    metricsFile,
    eventsFile,
    print: console ? print : undefined,
  });
  tracker.event('start', { step: state.step, total_steps: totalSteps, workers: run.workers });
  return { state, tracker };
}

async function runSteps(run: Run): Promise<number> {
  const { config, worker, workers, dir, data, totalSteps, interrupt, print, decode } = run;
  const { trainer } = config;
  const rows = { seed: config.data.seed, fingerprint: fingerprint(data.train) };
  const { state, tracker } = await openRun(run, rows);
  const score = await groupScorer(run);
  const validateAt = data.validation.length > 0 ? validator(run, score) : undefined;
  let after: Validation['summary'] | undefined;
  if (validateAt && (trainer.val_only || (trainer.val_before_train && state.step === 0))) {
    const { metrics, summary } = await validateAt(state.step);
    state.before = summary;
    tracker.log(state.step, metrics);
  }
  if (trainer.val_only) return 0;
  const signal = await fit({
    config,
    worker,
    reference: run.reference,
    critic: run.critic,
    loss: run.loss,
    workers,
    ban: worker.capabilities.visionIds,
    samples: data.train,
    sampler: data.sampler,
    totalSteps,
    state,
    tracker,
    interrupt,
    print,
    videosReady: data.ready,
    score,
    validate: validateAt
      ? async (step) => {
          const validation = await validateAt(step);
          after = validation.summary;
          return validation;
        }
      : undefined,
    save: async (current) => {
      const saved = await saveRun({
        worker,
        critic: run.critic && { worker: run.critic, hfFiles: config.critic.model.path },
        dir,
        state: current,
        data: rows,
        hfFiles: config.actor_rollout_ref.model.path,
        worldSize: workers,
        keep: trainer.max_actor_ckpt_to_keep,
      });
      tracker.event('checkpoint', { step: current.step, dir: saved });
    },
    logTrajectories: (kind, step, groups, trained) => {
      const verl = trainer.rollout_data_dir === null ? undefined : { dir: trainer.rollout_data_dir, decode };
      return writeTrajectories({ dir, kind, step, groups, rows: trained, verl });
    },
  });
  if (signal) {
    print(`stopped at step ${state.step} of ${totalSteps} and saved; the same command goes on from there`);
    return exitCodeOf(signal);
  }
  for (const line of closing(run, state, after)) print(line);
  return 0;
}

/** Runs a training. Resolves with the exit code. @throws InputError and RunError. */
export async function runTraining({ loaded, print, onReady, ...injected }: TrainOptions): Promise<number> {
  const { config, workers } = loaded;
  const { trainer } = config;
  const dir = trainer.default_local_dir;
  const loss = configuredLoss(config);
  const resumeFrom = checkpointToResume(trainer);
  const data = await openTrainingData(config, {
    jobs: 2,
    print,
    onVideo: (done, total) => {
      if (done === total) print(`all ${total} videos are rendered`);
    },
  });
  const interrupt = listenForInterrupt(print);
  let worker: PolicyWorker | undefined;
  let reference: PolicyWorker | undefined;
  let critic: CriticWorker | undefined;
  let unlock = (): void => {};
  try {
    const totalSteps = trainer.total_training_steps ?? trainer.total_epochs * data.sampler.stepsPerEpoch;
    const done = resumeFrom === undefined ? null : checkpointStep(resumeFrom);
    if (resumeFrom !== undefined && done !== null && done >= totalSteps) {
      openCheckpoint(resumeFrom).close();
      // Another model, data or algorithm is another run: this one's result is not its result.
      const changes = checkResumable(dir, config);
      print(
        `already complete: ${resumeFrom} is step ${done} of ${totalSteps}; give trainer.experiment_name=… or trainer.resume_mode=disable`,
      );
      for (const change of changes) print(`  changed, without effect on what is done: ${change}`);
      print(`its last step: ${lastLine(join(dir, 'metrics.jsonl'))}`);
      return 0;
    }
    mkdirSync(dir, { recursive: true });
    unlock = lockRun(dir);
    const tokenizer = loadTokenizer(config.actor_rollout_ref.model.path);
    onReady?.();
    const start = { workers, logDirectory: join(dir, 'logs'), warn: print };
    worker = await (injected.startWorker ?? startWorker)(config, start);
    print(engineLine(worker));
    if ((config.algorithm.use_kl_in_reward || config.actor_rollout_ref.actor.use_kl_loss) && !trainer.val_only)
      reference = await (injected.startReference ?? startReference)(config, start);
    if (trainsCritic(config) && !trainer.val_only) critic = await (injected.startCritic ?? startCritic)(config, start);
    return await runSteps({
      config,
      workers,
      dir,
      worker,
      reference,
      critic,
      loss,
      data,
      totalSteps,
      resumeFrom,
      interrupt,
      print,
      decode: (ids) => tokenizer.decode(ids),
    });
  } finally {
    interrupt.dispose();
    data.stop();
    await worker?.close();
    await reference?.close();
    await critic?.close();
    unlock();
  }
}

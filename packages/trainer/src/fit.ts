/** @file The GRPO loop: one training step reads from top to bottom, one timed phase a line. */
import { klController } from '@frame-thinker/algorithms';
import type { TrainConfig } from '@frame-thinker/config';
import { RunError, type Sample, type SamplingOptions } from '@frame-thinker/core';
import type { PolicyWorker } from '@frame-thinker/worker-pool';
import { updateActor } from './actor-update.ts';
import { greedyBaselines } from './greedy-baselines.ts';
import { advantageOptions, comparesGroup, estimateAdvantages, type TrainingRow } from './group-advantages.ts';
import type { Interrupt } from './interrupt.ts';
import { learningRate } from './learning-rate.ts';
import { PhaseTimer } from './phase-timer.ts';
import { type ConfiguredLoss, withRolloutCorrection } from './policy-loss.ts';
import type { QuestionSampler } from './question-sampler.ts';
import { withKlPenalty, withOldLogProbs, withRefLogProbs } from './reference-policy.ts';
import { type RolledGroup, rolloutGroups } from './rollout-groups.ts';
import type { RunState } from './run-checkpoints.ts';
import { counted, permuteRewards, type ScoredGroup } from './scored-groups.ts';
import { dataMetrics, timingMetrics } from './step-metrics.ts';
import type { Metrics, Tracker } from './tracker.ts';
import { countedGroups } from './training-batch.ts';
import type { Validation } from './validation.ts';

export interface FitOptions {
  config: TrainConfig;
  worker: PolicyWorker;
  /** The frozen reference policy, where a KL is used. */
  reference: PolicyWorker | undefined;
  loss: ConfiguredLoss;
  workers: number;
  ban: readonly number[];
  samples: readonly Sample[];
  sampler: QuestionSampler;
  totalSteps: number;
  state: RunState;
  tracker: Tracker;
  interrupt: Interrupt;
  print: (line: string) => void;
  /** Resolves when the videos of these questions are on disk. */
  videosReady: (samples: readonly Sample[]) => Promise<void>;
  score: (rolled: RolledGroup) => Promise<ScoredGroup>;
  validate: ((step: number) => Promise<Validation>) | undefined;
  save: (state: RunState) => Promise<void>;
  /** Returns the path of what was written, without the endings of its files. */
  logTrajectories: (
    kind: 'train' | 'non_finite',
    step: number,
    groups: readonly ScoredGroup[],
    rows: readonly TrainingRow[],
  ) => string;
}

/** Trains from state.step + 1 to totalSteps. Returns the signal that ended it early, with everything saved. */
export async function fit(options: FitOptions): Promise<'SIGINT' | 'SIGTERM' | undefined> {
  const { config, worker, reference, loss, state, tracker, interrupt, totalSteps } = options;
  const { algorithm } = config;
  const { actor, rollout } = config.actor_rollout_ref;
  const { temperature } = rollout;
  const scoring = { temperature, ban: options.ban };
  const compared = comparesGroup(algorithm.adv_estimator);
  const controller = klController({
    type: algorithm.kl_ctrl.type,
    klCoef: state.klCoefficient ?? algorithm.kl_ctrl.kl_coef,
    targetKl: algorithm.kl_ctrl.target_kl,
    horizon: algorithm.kl_ctrl.horizon,
  });
  const sampling: SamplingOptions = {
    temperature,
    topP: rollout.top_p,
    topK: rollout.top_k,
    doSample: rollout.do_sample,
  };
  const warmup = actor.optim.lr_warmup_steps;
  const updatesPerStep = actor.ppo_epochs * Math.ceil(config.data.train_batch_size / actor.ppo_mini_batch_size);
  const schedule = {
    lr: actor.optim.lr,
    warmupSteps: warmup >= 0 ? warmup : Math.round(actor.optim.lr_warmup_steps_ratio * totalSteps * updatesPerStep),
    style: actor.optim.warmup_style,
    totalSteps: totalSteps * updatesPerStep,
    minLrRatio: actor.optim.min_lr_ratio,
    numCycles: actor.optim.num_cycles,
  };
  let savedStep = state.step;
  const save = async (): Promise<void> => {
    await options.save(state);
    savedStep = state.step;
  };

  for (let step = state.step + 1; step <= totalSteps; step++) {
    const timer = new PhaseTimer((phase) => tracker.event('phase', { step, phase }));
    const last = step === totalSteps;
    const due = (every: number): boolean => last || (every > 0 && step % every === 0);
    const questions = options.sampler.rowsOf(step).map((row) => options.samples[row]!);
    await timer.timed('wait_for_videos', () => options.videosReady(questions));
    if (interrupt.signal) break;

    const asked = questions.map((sample, position) => ({ sample, position, n: rollout.n, step }));
    const rolled = await timer.timed('gen', () => rolloutGroups(worker, asked, { sampling }));
    const scored = await timer.timed('reward', () => Promise.all(rolled.map(options.score)));
    const groups = config.reward.permute ? permuteRewards(scored, { seed: config.trainer.seed, step }) : scored;
    const baselines =
      algorithm.adv_estimator === 'remax'
        ? await timer.timed('gen_max', () => greedyBaselines(worker, asked, { sampling, score: options.score }))
        : undefined;
    if (interrupt.signal) break;
    refuseUnreadable(groups, step);
    const measured: Metrics = {};
    const noted = <T extends { metrics: Metrics }>(result: T): T => {
      Object.assign(measured, result.metrics);
      return result;
    };
    let batch = countedGroups(groups, { compared, leftOut: (uid) => baselines?.has(uid) === false });
    if (rollout.recompute_log_prob)
      batch = noted(await timer.timed('old_log_prob', () => withOldLogProbs(batch, worker, scoring))).groups;
    if (reference) batch = await timer.timed('ref', () => withRefLogProbs(batch, reference, scoring));
    if (algorithm.use_kl_in_reward)
      batch = noted(withKlPenalty(batch, { kind: algorithm.kl_penalty, controller })).groups;
    batch = noted(withRolloutCorrection(batch, { algorithm, mode: loss.mode })).groups;
    const training = await timer.timed('adv', () =>
      estimateAdvantages(batch, {
        estimator: algorithm.adv_estimator,
        options: advantageOptions(algorithm),
        baselines,
      }),
    );
    const update = await timer.timed('update_actor', () =>
      updateActor(training, {
        worker,
        actor,
        loss,
        temperature,
        ban: options.ban,
        learningRate: (k) => learningRate(state.optimizerSteps + k, schedule),
        step,
        seed: config.trainer.seed,
        nonFinite: { inARow: state.skippedInARow, limit: config.trainer.max_non_finite_updates },
      }),
    );
    state.step = step;
    state.optimizerSteps += update.optimizerSteps;
    state.skippedUpdates += update.skippedUpdates;
    state.skippedInARow = update.skippedInARow;
    if (algorithm.use_kl_in_reward) state.klCoefficient = controller.value;
    const rows = training.flatMap((group) => group.rows);
    options.logTrajectories('train', step, groups, rows);

    const validation =
      due(config.trainer.test_freq) && options.validate
        ? await timer.timed('testing', () => options.validate?.(step))
        : undefined;
    const metrics: Metrics = {
      'training/global_step': step,
      'training/epoch': options.sampler.epochOf(step),
      ...dataMetrics(groups, training, {
        maxPromptLength: config.data.max_prompt_length,
        maxResponseLength: config.data.max_response_length,
      }),
      ...update.metrics,
      ...measured,
      'actor/skipped_updates_total': state.skippedUpdates,
      ...validation?.metrics,
    };
    const line = (): Metrics => ({ ...metrics, ...timingMetrics(timer.finish(), groups, options.workers) });
    if (due(config.trainer.save_freq)) {
      tracker.draft(step, line());
      await timer.timed('save_checkpoint', save);
    }
    tracker.log(step, line());

    if (compared && metrics['critic/frac_reward_zero_std'] === 1) explainNoVariance(groups, options.print);
    if (state.skippedInARow >= config.trainer.max_non_finite_updates) {
      const dump = options.logTrajectories('non_finite', step, groups, rows);
      throw new RunError(
        `step ${step}: the gradient was not finite in ${state.skippedInARow} updates in a row (trainer.max_non_finite_updates); ` +
          `the last batch is in ${dump}.jsonl (trajectories) and ${dump}.safetensors (tensors). Lower actor_rollout_ref.actor.optim.lr or look for what is wrong in it, and resume.`,
      );
    }
  }
  if (interrupt.signal && savedStep !== state.step) await save();
  return interrupt.signal;
}

/** A step in which no episode could read its video is no training. */
function refuseUnreadable(groups: readonly ScoredGroup[], step: number): void {
  const members = groups.flatMap((group) => group.members);
  if (!members.every(({ trajectory }) => trajectory.end === 'decode_error')) return;
  const reason = members.flatMap(({ trajectory }) => trajectory.turns.flatMap(({ error }) => error ?? []))[0];
  throw new RunError(
    `step ${step}: none of the ${members.length} episodes could read its video${reason ? ` (${reason})` : ''}; check the videos that the data files name`,
  );
}

/** Says why a step taught nothing. */
function explainNoVariance(groups: readonly ScoredGroup[], print: (line: string) => void): void {
  const totals = counted(groups).map(({ reward }) => reward.total);
  const best =
    totals.length === 0
      ? 'no trajectory counts'
      : totals.every((t) => t === 0)
        ? 'all rewards are 0'
        : 'every group agrees with itself';
  print(
    `  no gradient in this step: ${best}. The advantages compare the samples of one question; raise rollout.n or temperature, or take harder or easier rows.`,
  );
}

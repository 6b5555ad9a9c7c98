/** @file The GRPO loop: one training step reads from top to bottom, one timed phase a line. */
import { klController } from '@frame-thinker/algorithms';
import type { TrainConfig } from '@frame-thinker/config';
import { type Interrupt, RunError, type Sample, type SamplingOptions } from '@frame-thinker/core';
import type { CriticWorker, PolicyWorker } from '@frame-thinker/worker-pool';
import { updateActor } from './actor-update.ts';
import { updateCritic, withValues } from './critic-update.ts';
import { generate } from './generation.ts';
import { greedyBaselines } from './greedy-baselines.ts';
import {
  advantageOptions,
  comparesGroup,
  estimateAdvantages,
  needsSumPiSquared,
  type TrainingRow,
  withoutAdvantages,
} from './group-advantages.ts';
import { learningRate, scheduleOf } from './learning-rate.ts';
import { balanceMetrics, scoringBatches } from './micro-batches.ts';
import { PhaseTimer } from './phase-timer.ts';
import { type ConfiguredLoss, withRolloutCorrection } from './policy-loss.ts';
import type { QuestionSampler } from './question-sampler.ts';
import { withKlPenalty, withOldLogProbs, withRefLogProbs } from './reference-policy.ts';
import { type RolledGroup, rolloutGroups } from './rollout-groups.ts';
import type { RunState, UpdateCounts } from './run-checkpoints.ts';
import { counted, type ScoredGroup } from './scored-groups.ts';
import { dataMetrics, timingMetrics, varianceMetrics } from './step-metrics.ts';
import type { Metrics, Tracker } from './tracker.ts';
import { countedGroups } from './training-batch.ts';
import type { Validation } from './validation.ts';

export interface FitOptions {
  config: TrainConfig;
  worker: PolicyWorker;
  /** The frozen reference policy, where a KL is used. */
  reference: PolicyWorker | undefined;
  /** Where one is trained. */
  critic: CriticWorker | undefined;
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
  const { config, worker, reference, critic, loss, state, tracker, interrupt, totalSteps } = options;
  const { algorithm, trainer } = config;
  const { actor, rollout } = config.actor_rollout_ref;
  const { temperature } = rollout;
  const scoring = { temperature, ban: options.ban };
  const sumPiSquared = actor.calculate_sum_pi_squared || needsSumPiSquared(algorithm.adv_estimator);
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
  const updates = ({ ppo_epochs, ppo_mini_batch_size }: { ppo_epochs: number; ppo_mini_batch_size: number }): number =>
    totalSteps * ppo_epochs * Math.ceil(config.data.train_batch_size / ppo_mini_batch_size);
  const schedule = scheduleOf(actor.optim, updates(actor));
  const criticSchedule = scheduleOf(config.critic.optim, updates(config.critic));
  const nonFinite = ({ skippedInARow: inARow }: UpdateCounts) => ({ inARow, limit: trainer.max_non_finite_updates });
  let savedStep = state.step;
  const save = async (): Promise<void> => {
    await options.save(state);
    savedStep = state.step;
  };

  for (let step = state.step + 1; step <= totalSteps; step++) {
    const timer = new PhaseTimer((phase) => tracker.event('phase', { step, phase }));
    const last = step === totalSteps;
    const due = (every: number): boolean => last || (every > 0 && step % every === 0);
    const generated = await generate(state.batchesDrawn ?? state.step, {
      ...options,
      step,
      timer,
      rollOut: (asked) => rolloutGroups(worker, asked, { sampling }),
      interrupted: () => interrupt.signal !== undefined,
    });
    if (!generated) break;
    const { groups } = generated;
    const asked = groups.map(({ group }) => group);
    const baselines =
      algorithm.adv_estimator === 'remax'
        ? await timer.timed('gen_max', () => greedyBaselines(worker, asked, { sampling, score: options.score }))
        : undefined;
    if (interrupt.signal) break;
    const measured: Metrics = {};
    const noted = <T extends { metrics: Metrics }>(result: T): T => {
      Object.assign(measured, result.metrics);
      return result;
    };
    let batch = countedGroups(groups, { compared, leftOut: (uid) => baselines?.has(uid) === false });
    if (rollout.recompute_log_prob || sumPiSquared) {
      const asked = {
        ...scoring,
        batches: scoringBatches('rollout', rollout),
        recompute: rollout.recompute_log_prob,
        ...(sumPiSquared ? { sumPiSquared } : {}),
      };
      batch = noted(await timer.timed('old_log_prob', () => withOldLogProbs(batch, worker, asked))).groups;
    }
    if (reference) {
      const asked = { ...scoring, batches: scoringBatches('ref', config.actor_rollout_ref.ref) };
      batch = await timer.timed('ref', () => withRefLogProbs(batch, reference, asked));
    }
    if (critic) batch = await timer.timed('values', () => withValues(batch, critic));
    if (algorithm.use_kl_in_reward)
      batch = noted(withKlPenalty(batch, { kind: algorithm.kl_penalty, controller })).groups;
    batch = noted(withRolloutCorrection(batch, { algorithm, mode: loss.mode })).groups;
    const estimated = await timer.timed('adv', () =>
      estimateAdvantages(batch, {
        estimator: algorithm.adv_estimator,
        options: advantageOptions(algorithm),
        baselines,
      }),
    );
    const training = generated.teaches ? estimated : withoutAdvantages(estimated);
    if (critic) {
      const before = state.critic ?? { optimizerSteps: 0, skippedUpdates: 0, skippedInARow: 0 };
      const update = await timer.timed('update_critic', () =>
        updateCritic(training, {
          worker: critic,
          critic: config.critic,
          lossNorm: actor.loss_norm,
          lossScaleFactor: actor.loss_scale_factor ?? config.data.max_response_length,
          learningRate: (k) => learningRate(before.optimizerSteps + k, criticSchedule),
          step,
          seed: trainer.seed,
          nonFinite: nonFinite(before),
        }),
      );
      state.critic = addCounts(before, update);
      noted(update);
    }
    if (step >= trainer.critic_warmup) {
      const update = await timer.timed('update_actor', () =>
        updateActor(training, {
          worker,
          actor,
          loss,
          temperature,
          ban: options.ban,
          learningRate: (k) => learningRate(state.optimizerSteps + k, schedule),
          step,
          seed: trainer.seed,
          ...(trainer.balance_batch ? { balanceOver: options.workers } : {}),
          nonFinite: nonFinite(state),
        }),
      );
      Object.assign(state, addCounts(state, update));
      // What a forward measured before stands.
      noted({ metrics: { ...update.metrics, ...measured } });
    }
    state.step = step;
    if (algorithm.filter_groups.enable) state.batchesDrawn = (state.batchesDrawn ?? 0) + generated.batches;
    if (algorithm.use_kl_in_reward) state.klCoefficient = controller.value;
    const rows = training.flatMap((group) => group.rows);
    options.logTrajectories('train', step, [...groups, ...generated.filtered], rows);

    const validation =
      due(config.trainer.test_freq) && options.validate
        ? await timer.timed('testing', () => options.validate?.(step))
        : undefined;
    const metrics: Metrics = {
      'training/global_step': step,
      'training/epoch': options.sampler.epochOf(state.batchesDrawn ?? step),
      ...generated.metrics,
      ...dataMetrics(groups, training, {
        maxPromptLength: config.data.max_prompt_length,
        maxResponseLength: config.data.max_response_length,
      }),
      ...(trainer.balance_batch ? balanceMetrics(training, options.workers) : {}),
      ...measured,
      ...(sumPiSquared ? varianceMetrics(training, measured['actor/grad_norm']) : {}),
      'actor/skipped_updates_total': state.skippedUpdates,
      ...validation?.metrics,
    };
    const line = (): Metrics => ({ ...metrics, ...timingMetrics(timer.finish(), groups, options.workers) });
    if (due(config.trainer.save_freq)) {
      tracker.draft(step, line());
      await timer.timed('save_checkpoint', save);
    }
    tracker.log(step, line());

    // With rollout.n=1, or an entropy or KL term, there is a gradient all the same.
    const still = !((metrics['actor/grad_norm'] ?? 0) > 0);
    if (compared && still && metrics['critic/frac_reward_zero_std'] === 1) explainNoVariance(groups, options.print);
    const inARow = Math.max(state.skippedInARow, state.critic?.skippedInARow ?? 0);
    if (inARow >= trainer.max_non_finite_updates) {
      const dump = options.logTrajectories('non_finite', step, groups, rows);
      const block = inARow === state.skippedInARow ? 'actor_rollout_ref.actor' : 'critic';
      throw new RunError(
        `step ${step}: the gradient was not finite in ${inARow} updates in a row (trainer.max_non_finite_updates); ` +
          `the last batch is in ${dump}.jsonl (trajectories) and ${dump}.safetensors (tensors). Lower ${block}.optim.lr or look for what is wrong in it, and resume.`,
      );
    }
  }
  if (interrupt.signal && savedStep !== state.step) await save();
  return interrupt.signal;
}

/** The counts after an update. */
const addCounts = (before: UpdateCounts, update: UpdateCounts): UpdateCounts => ({
  optimizerSteps: before.optimizerSteps + update.optimizerSteps,
  skippedUpdates: before.skippedUpdates + update.skippedUpdates,
  skippedInARow: update.skippedInARow,
});

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

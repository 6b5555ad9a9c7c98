/** @file One whole GRPO update on an engine against transformers and torch. */
import { ADVANTAGE_ESTIMATORS, aggLoss, klPenalty, type LossAggMode, POLICY_LOSSES } from '@frame-thinker/algorithms';
import type { Engine, ParameterSet } from '@frame-thinker/graph';
import {
  createScorer,
  createVisionEncoder,
  mropePositions,
  type QwenVLConfig,
  type ScoreRow,
  type Scorer,
} from '@frame-thinker/qwen-vl';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { TestedEngine } from '../engines/engines.ts';
import {
  hasGolden,
  l2,
  loadModel,
  maxDifference,
  modelConfig,
  processedImages,
  readJson,
  readTensors,
  relativeL2,
  Tally,
  type Tensors,
} from './qwen-fixtures.ts';

interface FixtureTrajectory {
  group: number;
  input_ids: number[];
  images: [number, number, number][];
  grid_thw: [number, number, number][];
  prompt_length: number;
  mask: number[];
  position_ids: number[][];
  reward: number;
  advantage: number;
}
interface UpdateCase {
  options: {
    temperature: number;
    loss: string;
    agg: LossAggMode;
    kl_coef: number;
    kl_type?: string;
    entropy_coeff: number;
  };
  /** Of ids[1:]. */
  trajectories: {
    log_probs: number[];
    entropy: number[];
    old_log_probs: number[];
    ref_log_probs: number[];
    d_logp: number[];
    d_entropy: number[];
  }[];
  loss: number;
  pg_loss: number;
  kl_loss: number;
  entropy: number;
  pg_clipfrac: number;
  pg_clipfrac_lower: number;
  ppo_kl: number;
  grad_norm: number;
  grad_norms: Record<string, number>;
  param_l2_after: Record<string, number>;
}
interface Fixture {
  trajectories: FixtureTrajectory[];
  optimizer: { lr: number; weight_decay: number; betas: [number, number]; eps: number; grad_clip: number };
  clip_ratio: number;
  clip_ratio_c: number;
  cases: Record<string, UpdateCase>;
}

/** What one update comes to, in the fixture's names; gradients before the optimizer step, weights after it. */
interface Update {
  logProbs: Float32Array[];
  entropies: Float32Array[];
  dLogProbs: Float32Array[];
  dEntropy: Float32Array[];
  sums: Record<'loss' | 'pg_loss' | 'kl_loss' | 'entropy', number>;
  metrics: Record<'pg_clipfrac' | 'pg_clipfrac_lower' | 'ppo_kl', number>;
  gradNorm: number;
  gradients: Map<string, Float64Array>;
}

/** True gradient 0: what AdamW makes of it is rounding. */
const isNoise = (name: string) => name.endsWith('k_proj.bias');
/** Of ids[1:] → aligned with ids. */
const aligned = (values: readonly number[]) => Float32Array.of(0, ...values);
const pick = <T>(items: readonly T[], indices: readonly number[]) => indices.map((i) => items[i]!);

export function describeGrpoUpdate(tested: TestedEngine): void {
  describe.runIf(hasGolden('qwen/grpo_update.json'))(
    `one whole GRPO update against transformers and torch, on ${tested.title}`,
    () => {
      let engine: Engine;
      let config: QwenVLConfig;
      let parameters: ParameterSet;
      let scorer: Scorer;
      let fixture: Fixture;
      let tensors: Tensors;
      let rows: ScoreRow[];
      let initial: Map<string, Float32Array>;
      const tally = new Tally('qwen/grpo_update.json');

      beforeEach((context) => tested.require(context));
      beforeAll(async () => {
        if (tested.missing() !== undefined) return;
        engine = await tested.open();
        config = modelConfig();
        parameters = await loadModel(engine, config);
        initial = new Map(parameters.specs.map(({ name }) => [name, parameters.read(name)]));
        const vision = createVisionEncoder({ engine, parameters, config });
        scorer = createScorer({ engine, parameters, config, vision });
        fixture = readJson('grpo_update.json');
        tensors = readTensors('grpo_update.safetensors');
        rows = fixture.trajectories.map(({ input_ids, images }) => ({
          ids: Int32Array.from(input_ids),
          images: processedImages(images),
        }));
      });
      afterAll(async () => {
        if (!engine) return;
        tally.print();
        await engine.release();
      });

      const restart = () => {
        for (const [name, weights] of initial) {
          parameters.write(name, weights);
          for (const kind of ['exp_avg', 'exp_avg_sq'] as const)
            parameters.writeMoment(name, kind, new Float32Array(weights.length));
        }
        parameters.step = 0;
        parameters.gradients.zero();
      };

      /** Forward, loss and cotangents, backward of each micro-batch, then one AdamW step. */
      const update = async (given: UpdateCase, masks: readonly number[][], microBatch: number): Promise<Update> => {
        restart();
        const { options } = given;
        const lossOf = POLICY_LOSSES.get(options.loss);
        if (!lossOf) throw new Error(`no loss ${options.loss}`);
        const tokens = masks.flat().reduce((a, b) => a + b, 0);
        const agg = { lossAggMode: options.agg, batchNumTokens: tokens, globalBatchSize: rows.length };
        const { clip_ratio: clipRatio, clip_ratio_c: clipRatioC } = fixture;
        const out: Update = {
          logProbs: [],
          entropies: [],
          dLogProbs: [],
          dEntropy: [],
          sums: { loss: 0, pg_loss: 0, kl_loss: 0, entropy: 0 },
          metrics: { pg_clipfrac: 0, pg_clipfrac_lower: 0, ppo_kl: 0 },
          gradNorm: 0,
          gradients: new Map(),
        };
        for (let start = 0; start < rows.length; start += microBatch) {
          const members = [...rows.keys()].slice(start, start + microBatch);
          const batch = { rows: pick(rows, members) };
          const settings = { temperature: options.temperature, ban: [] };
          const { logProbs, entropy } = await scorer.forward(batch, settings);
          const mask = pick(masks, members);
          const policy = lossOf(
            {
              logProb: logProbs,
              oldLogProb: members.map((i) => aligned(given.trajectories[i]!.old_log_probs)),
              advantages: members.map((i) => masks[i]!.map(() => fixture.trajectories[i]!.advantage)),
              mask,
            },
            { ...agg, clipRatio, clipRatioC },
          );
          const reference = members.map((i) => aligned(given.trajectories[i]!.ref_log_probs));
          const penalty = klPenalty(logProbs, reference, options.kl_type ?? 'low_var_kl');
          const kl = aggLoss(penalty.kl, mask, agg);
          const spread = aggLoss(entropy, mask, agg);
          const cotangents = (value: (i: number, t: number) => number) =>
            logProbs.map((row, i) => Float32Array.from(row, (_, t) => (mask[i]![t] ? value(i, t) : 0)));
          const dLogProbs = cotangents(
            (i, t) =>
              policy.gradLogProb[i]![t]! + options.kl_coef * kl.gradLossMat[i]![t]! * penalty.gradLogProb[i]![t]!,
          );
          const dEntropy = cotangents((i, t) => -options.entropy_coeff * spread.gradLossMat[i]![t]!);
          const again = await scorer.backward(batch, { ...settings, dLogProbs, dEntropy });
          expect(
            maxDifference(
              again.logProbs.flatMap((x) => [...x]),
              logProbs.flatMap((x) => [...x]),
            ),
          ).toBeLessThan(1e-5);

          out.logProbs.push(...logProbs);
          out.entropies.push(...entropy);
          out.dLogProbs.push(...dLogProbs);
          out.dEntropy.push(...dEntropy);
          out.sums.pg_loss += policy.loss;
          out.sums.kl_loss += kl.loss;
          out.sums.entropy += spread.loss;
          const share = mask.flat().reduce((a, b) => a + b, 0) / tokens;
          for (const name of Object.keys(out.metrics) as (keyof Update['metrics'])[])
            out.metrics[name] += share * policy.metrics[`actor/${name}`]!;
        }
        const { pg_loss, kl_loss, entropy } = out.sums;
        out.sums.loss = pg_loss + options.kl_coef * kl_loss - options.entropy_coeff * entropy;
        for (const { name } of parameters.specs) out.gradients.set(name, parameters.gradients.get(name));
        const { lr, betas, eps, weight_decay: weightDecay, grad_clip: maxNorm } = fixture.optimizer;
        out.gradNorm = parameters.adamw({ lr, betas, eps, weightDecay, maxNorm }).gradNorm;
        return out;
      };

      const compare = (into: Tally, name: string, given: UpdateCase, ours: Update, label: string) => {
        const within = (what: string, error: number, limit: number) => into.within(`${label} ${what}`, error, limit);
        for (const [i, t] of given.trajectories.entries()) {
          within(`log_probs ${i}`, maxDifference(ours.logProbs[i]!, aligned(t.log_probs)), 1e-4);
          within(`entropy ${i}`, maxDifference(ours.entropies[i]!, aligned(t.entropy)), 1e-4);
          const cotangent = (what: string, a: Float32Array, b: readonly number[]) => {
            const largest = b.reduce((most, x) => Math.max(most, Math.abs(x)), 0);
            within(`${what} ${i}`, maxDifference(a, aligned(b)), 1e-3 * largest);
          };
          cotangent('d_logp', ours.dLogProbs[i]!, t.d_logp);
          cotangent('d_entropy', ours.dEntropy[i]!, t.d_entropy);
        }
        within('loss', Math.abs(ours.sums.loss - given.loss), 1e-5);
        within('pg_loss', Math.abs(ours.sums.pg_loss - given.pg_loss), 1e-5);
        within('kl_loss', Math.abs(ours.sums.kl_loss - given.kl_loss), 1e-5);
        within('entropy', Math.abs(ours.sums.entropy - given.entropy), 1e-4);
        for (const metric of ['pg_clipfrac', 'pg_clipfrac_lower', 'ppo_kl'] as const)
          within(metric, Math.abs(ours.metrics[metric] - given[metric]), 1e-5);
        within('grad_norm', Math.abs(ours.gradNorm / given.grad_norm - 1), 1e-3);
        for (const [parameter, norm] of Object.entries(given.grad_norms)) {
          if (isNoise(parameter)) continue;
          within(`grad_norm ${parameter}`, Math.abs(l2(ours.gradients.get(parameter)!) / norm - 1), 1e-3);
        }
        for (const [parameter, norm] of Object.entries(given.param_l2_after)) {
          if (isNoise(parameter)) continue;
          within(`l2 after ${parameter}`, Math.abs(l2(parameters.read(parameter)) / norm - 1), 1e-3);
        }
        for (const tensor of tensors.names) {
          const parameter = tensor.slice(`${name}.`.length).replace(/^(grad|after)\./, '');
          const values = () => tensors.get(tensor)!;
          if (tensor.startsWith(`${name}.grad.`))
            within(`grad ${parameter}`, relativeL2(ours.gradients.get(parameter)!, values()), 1e-3);
          else if (tensor.startsWith(`${name}.after.`))
            within(`after ${parameter}`, relativeL2(parameters.read(parameter), values()), 1e-3);
        }
      };

      it('positions and advantages are the same', () => {
        const { trajectories } = fixture;
        const before = tally.failures.length;
        for (const [i, t] of trajectories.entries()) {
          const { positions } = mropePositions({ ids: t.input_ids, grids: t.grid_thw, config });
          tally.within(`position_ids ${i}`, maxDifference(positions, t.position_ids.flat()), 0);
        }
        const grpo = ADVANTAGE_ESTIMATORS.get('grpo')!({
          tokenLevelRewards: trajectories.map(({ mask, reward }) =>
            mask.map((_, t) => (t === mask.length - 1 ? reward : 0)),
          ),
          mask: trajectories.map(({ mask }) => mask),
          index: trajectories.map(({ group }) => `${group}`),
        });
        for (const [i, t] of trajectories.entries())
          tally.within(
            `advantage ${i}`,
            maxDifference(
              grpo.advantages[i]!,
              t.mask.map((m) => m * t.advantage),
            ),
            1e-5,
          );
        expect(tally.failures.slice(before)).toEqual([]);
      });

      for (const microBatch of [1, 2, 4])
        it(`every case is the same, in micro-batches of ${microBatch}`, async () => {
          const before = tally.failures.length;
          const masks = fixture.trajectories.map(({ mask }) => mask);
          for (const [name, given] of Object.entries(fixture.cases))
            compare(tally, name, given, await update(given, masks, microBatch), `${name}, micro-batch ${microBatch}:`);
          expect(tally.failures.slice(before)).toEqual([]);
        });

      const wrong: [string, (t: FixtureTrajectory) => number[]][] = [
        ['shifted by one token', ({ mask }) => [0, ...mask.slice(0, -1)]],
        [
          'with observation tokens unmasked',
          ({ mask, prompt_length }) => mask.map((_, t) => (t >= prompt_length ? 1 : 0)),
        ],
      ];
      for (const [what, change] of wrong)
        it(`a mask ${what} is noticed in cotangents, loss, gradients and weights`, async () => {
          const [name, given] = Object.entries(fixture.cases)[0]!;
          const other = new Tally('');
          const ours = await update(given, fixture.trajectories.map(change), fixture.trajectories.length);
          compare(other, name, given, ours, 'wrong mask:');
          for (const part of ['d_logp', 'loss', 'grad_norm', 'grad ', 'after '])
            expect(other.failures.some((failure) => failure.startsWith(`wrong mask: ${part}`))).toBe(true);
        });
    },
  );
}

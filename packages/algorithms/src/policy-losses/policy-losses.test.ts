import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { AlgorithmError } from '../error.ts';
import { sumOf } from '../rows.ts';
import type { LossAggMode, PolicyLoss, PolicyLossInput, PolicyLossOptions, Rows } from '../types.ts';
import { POLICY_LOSSES } from './index.ts';

const MODES: LossAggMode[] = ['token-mean', 'seq-mean-token-sum', 'seq-mean-token-mean', 'seq-mean-token-sum-norm'];
const value = (min: number, max: number) => fc.double({ min, max, noNaN: true });

/** Ragged batches; the first token of the first row is always sampled. */
const batches = fc
  .array(fc.array(fc.tuple(value(-3, 0), value(-3, 0), value(-2, 2), fc.boolean()), { minLength: 1, maxLength: 5 }), {
    minLength: 2,
    maxLength: 4,
  })
  .map((rows): PolicyLossInput & { mask: Float64Array[] } => {
    const column = (k: 0 | 1 | 2) => rows.map((row) => Float64Array.from(row, (token) => token[k]));
    const mask = rows.map((row, i) => Float64Array.from(row, (token, t) => (token[3] || (i === 0 && t === 0) ? 1 : 0)));
    return { logProb: column(0), oldLogProb: column(1), advantages: column(2), mask };
  });
const options = (lossAggMode: LossAggMode): PolicyLossOptions => ({
  lossAggMode,
  droBeta: 0.3,
  klCovRatio: 0.3,
  clipCovRatio: 0.3,
  clipCovLb: 0.1,
  permutation: (n) => Array.from({ length: n }, (_, i) => n - 1 - i),
  rolloutCorrection: { lossType: 'ppo_clip', rolloutRs: 'seq_mean_k3', rolloutRsThreshold: 5 },
});
const one = (x: number): Rows => [[x]];
const single = (ratio: number, advantage: number): PolicyLossInput => ({
  logProb: one(Math.log(ratio) - 1),
  oldLogProb: one(-1),
  advantages: one(advantage),
  mask: one(1),
});
const loss = (name: string): PolicyLoss => POLICY_LOSSES.get(name)!;

/** Losses that hold something constant in their gradient: there the derivative is of what is left. */
const STOPPED = new Set(['cispo', 'gspo', 'dppo_tv', 'dppo_kl']);

describe('every policy loss', () => {
  for (const [name, run] of POLICY_LOSSES) {
    it(`${name}: the gradient is 0 outside the mask, and what stands there never matters`, () => {
      fc.assert(
        fc.property(batches, fc.constantFrom(...MODES), (batch, mode) => {
          const { loss: a, gradLogProb, metrics } = run(batch, options(mode));
          for (const [i, row] of batch.mask.entries())
            for (let t = 0; t < row.length; t++) {
              expect(Number.isFinite(gradLogProb[i]![t]!)).toBe(true);
              if (row[t] === 0) expect(gradLogProb[i]![t]! + 0).toBe(0);
            }
          const spoilt = (rows: Rows) =>
            rows.map((row, i) => Array.from(row, (x, t) => (batch.mask[i]![t] ? x : Number.NaN)));
          const other = run(
            {
              mask: batch.mask,
              logProb: spoilt(batch.logProb),
              oldLogProb: spoilt(batch.oldLogProb),
              advantages: spoilt(batch.advantages),
            },
            options(mode),
          );
          expect([other.loss, other.metrics]).toEqual([a, metrics]);
        }),
        { numRuns: 30, seed: 1 },
      );
    });

    if (STOPPED.has(name)) continue;
    it(`${name}: the gradient is the slope of the loss`, () => {
      let compared = 0;
      fc.assert(
        fc.property(batches, fc.constantFrom(...MODES), (batch, mode) => {
          const { gradLogProb } = run(batch, options(mode));
          for (const [i, row] of batch.mask.entries())
            for (let t = 0; t < row.length; t++) {
              const at = (shift: number) => {
                const logProb = batch.logProb.map((r) => Float64Array.from(r));
                logProb[i]![t]! += shift;
                return run({ ...batch, logProb }, options(mode)).loss;
              };
              const [left, right] = [(at(0) - at(-1e-6)) / 1e-6, (at(1e-6) - at(0)) / 1e-6];
              // A kink or a jump (clip edges, choices by covariance, rejection) has no slope.
              if (Math.abs(left - right) > 1e-4) continue;
              expect(gradLogProb[i]![t]!).toBeCloseTo((left + right) / 2, 4);
              compared++;
            }
        }),
        { numRuns: 30, seed: 2 },
      );
      expect(compared).toBeGreaterThan(100);
    });
  }
});

describe('vanilla', () => {
  const at = (ratio: number, advantage: number, more: Partial<PolicyLossOptions> = {}) => {
    const out = loss('vanilla')(single(ratio, advantage), { lossAggMode: 'token-mean', ...more });
    return { loss: out.loss, slope: out.gradLogProb[0]![0]!, metrics: out.metrics };
  };
  const close = (x: number) => expect.closeTo(x, 10);

  it('clips where it would help the policy, and only there', () => {
    expect(at(1.5, 2)).toMatchObject({ loss: close(-2.4), slope: close(0) });
    expect(at(0.5, 2)).toMatchObject({ loss: close(-1), slope: close(-1) });
    expect(at(0.5, -2)).toMatchObject({ loss: close(1.6), slope: close(0) });
    expect(at(1.5, -2)).toMatchObject({ loss: close(3), slope: close(3) });
    expect(at(1, 2)).toMatchObject({ loss: close(-2), slope: close(-2) });
  });
  it('caps the loss of bad tokens at c (dual clip)', () => {
    expect(at(5, -2)).toMatchObject({ loss: close(6), slope: close(0) });
    expect(at(5, -2).metrics['actor/pg_clipfrac_lower']).toBeCloseTo(1, 6);
    expect(at(5, -2, { clipRatioC: 10 }).loss).toBeCloseTo(10);
  });
  it('clips higher on its own side', () => {
    expect(at(1.5, 2, { clipRatioHigh: 0.28 }).loss).toBeCloseTo(-2.56);
    expect(at(1.5, 2, { clipRatioHigh: 0.28 }).metrics['actor/pg_clipfrac']).toBeCloseTo(1, 6);
  });
  it('refuses a dual clip that is no clip', () => {
    expect(() => at(1, 1, { clipRatioC: 1 })).toThrow('clip_ratio_c 1: must be above 1');
  });
});

describe('losses that stop a gradient', () => {
  it('cispo keeps the gradient of clipped tokens', () => {
    const out = loss('cispo')(single(2, 1), { lossAggMode: 'token-mean' });
    expect(out.gradLogProb[0]![0]).toBeCloseTo(-1.2);
    expect(out.metrics['actor/pg_clipfrac']).toBeCloseTo(1, 6);
  });
  it('dppo drops tokens outside the trust region and truncates the ratio', () => {
    const input = { ...single(1, 1), logProb: one(Math.log(0.9)), oldLogProb: one(Math.log(0.1)) };
    for (const name of ['dppo_tv', 'dppo_kl'])
      expect(loss(name)(input, { lossAggMode: 'token-mean' })).toMatchObject({
        metrics: { 'actor/pg_clipfrac': expect.closeTo(1, 6) },
        gradLogProb: [Float64Array.of(0)],
      });
    const wide = { lossAggMode: 'token-mean', clipRatio: 5, clipRatioC: 4 } as const;
    expect(loss('dppo_tv')(input, wide).gradLogProb[0]![0]).toBeCloseTo(-4);
  });
  it('gspo gives each token of a row the ratio of the row', () => {
    const row = { logProb: [[-1, -2]], oldLogProb: [[-1.1, -1.9]], advantages: [[1, 3]], mask: [[1, 1]] };
    const { loss: l, gradLogProb } = loss('gspo')(row, { lossAggMode: 'token-mean' });
    expect(l).toBeCloseTo(-2);
    expect([...gradLogProb[0]!]).toEqual([expect.closeTo(-0.5), expect.closeTo(-1.5)]);
  });
});

describe('micro-batches', () => {
  it('add up to the mini-batch when the figures of the mini-batch are given', () => {
    fc.assert(
      fc.property(batches, fc.constantFrom(...MODES), (batch, mode) => {
        const figures = {
          batchNumTokens: sumOf(batch.mask.map(sumOf)),
          globalBatchSize: batch.mask.filter((row) => sumOf(row) > 0).length,
          lossScaleFactor: 8,
        };
        const run = (from: number, to: number) => {
          const cut = (rows: Rows) => rows.slice(from, to);
          const { logProb, oldLogProb, advantages, mask } = batch;
          return loss('vanilla')(
            { logProb: cut(logProb), oldLogProb: cut(oldLogProb), advantages: cut(advantages), mask: cut(mask) },
            { lossAggMode: mode, ...figures },
          );
        };
        const [whole, first, rest] = [run(0, batch.mask.length), run(0, 1), run(1, batch.mask.length)];
        expect(first.loss + rest.loss).toBeCloseTo(whole.loss, 10);
        for (const [i, row] of [...first.gradLogProb, ...rest.gradLogProb].entries())
          row.forEach((g, t) => {
            expect(g).toBeCloseTo(whole.gradLogProb[i]![t]!, 12);
          });
      }),
      { numRuns: 50 },
    );
  });
});

describe('refusals', () => {
  it('name the loss and what is missing', () => {
    const input = single(1, 1);
    const plain = { lossAggMode: 'token-mean' } as const;
    expect(() => loss('dro')(input, plain)).toThrow('dro_beta undefined: dro needs a positive value');
    expect(() => loss('clip_cov')(input, plain)).toThrow('clip_cov: options.permutation is needed');
    expect(() => loss('bypass_mode')(input, plain)).toThrow('rollout_correction is needed');
    expect(() => loss('vanilla')(input, { lossAggMode: 'mean' as LossAggMode })).toThrow('loss_agg_mode mean: must be');
    expect(() => loss('vanilla')({ ...input, advantages: [[1, 2]] }, plain)).toThrow(
      'policy loss vanilla: row 0 of advantages has 2 tokens, the mask 1',
    );
    expect(() => loss('vanilla')({ ...input, logProb: [] }, plain)).toThrow(AlgorithmError);
  });
});

/**
 * @file Every advantage estimator and policy loss of the schema trains two steps from YAML and ends at other weights than GRPO does
 * in the same setting; the critic and the filter of groups go on after a resume bit for bit. The runs share their worker processes,
 * which begin each run with the base policy's weights; episodes are one short turn, scored by a reward that hangs on the tokens.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { loadConfig } from '@frame-thinker/config';
import { workerEntry } from '@frame-thinker/policy-worker';
import { criticInit, runTraining, workerInit } from '@frame-thinker/trainer';
import { createLocalPool, type WorkerInit } from '@frame-thinker/worker-pool';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { giveState, stateOf, type WorkerState } from '../../packages/worker-pool/src/testing/worker-state.ts';
import { root, runCommand } from './processes.ts';

const dir = mkdtempSync(join(tmpdir(), 'ft-every-algorithm-'));
const reward = join(dir, 'reward.mjs');
const actor = 'actor_rollout_ref.actor';
const correction = 'algorithm.rollout_correction';

const config = (name: string, settings: readonly string[]) =>
  loadConfig({
    file: join(root, 'configs/debug/tiny.yaml'),
    overrides: [
      `actor_rollout_ref.model.path=${join(root, 'examples/agent/base')}`,
      `trainer.default_local_dir=${join(dir, name)}`,
      `custom_reward_function.path=${reward}`,
      ...['data.val_files=[]', 'trainer.save_freq=-1', 'data.max_response_length=24'],
      ...['actor_rollout_ref.rollout.n=3', 'actor_rollout_ref.rollout.slots=6'],
      ...['actor_rollout_ref.rollout.agent.max_turns=1'],
      ...['actor_rollout_ref.rollout.agent.single_response_max_tokens=16'],
      ...settings,
    ],
    cores: 2,
  });

type Pool = Awaited<ReturnType<typeof createLocalPool>>;
const pools: Record<string, { pool: Pool; first: WorkerState }> = {};
async function open(name: string, init: WorkerInit): Promise<void> {
  const pool = await createLocalPool({ entry: workerEntry, init });
  pools[name] = { pool, first: await stateOf(pool) };
}
/** A shared pool with its first weights; a run that closes it leaves it open. */
async function shared(name: string): Promise<Pool> {
  const { pool, first } = pools[name]!;
  if (name !== 'reference') await giveState(pool, first);
  return new Proxy(pool, {
    get: (target, key) => {
      if (key === 'close') return async () => {};
      const value: unknown = Reflect.get(target, key, target);
      return typeof value === 'function' ? value.bind(target) : value;
    },
  });
}

interface Finished {
  /** One object a step. */
  metrics: Record<string, number>[];
  lines: string[];
  weights: WorkerState;
}
async function train(name: string, ...settings: string[]): Promise<Finished> {
  const lines: string[] = [];
  const loaded = config(name, settings);
  const code = await runTraining({
    loaded,
    print: (line) => lines.push(line),
    startWorker: () => shared('policy'),
    startReference: () => shared('reference'),
    startCritic: () => shared('critic'),
  });
  expect(code).toBe(0);
  const metrics = readFileSync(join(dir, name, 'metrics.jsonl'), 'utf8')
    .trim()
    .split('\n');
  return { metrics: metrics.map((line) => JSON.parse(line)), lines, weights: await stateOf(pools.policy!.pool) };
}

const distance = (a: WorkerState, b: WorkerState): number => {
  let sum = 0;
  for (const [name, { weight }] of a.parameters) {
    const other = b.parameters.get(name)!.weight;
    for (let i = 0; i < weight.length; i++) sum += (weight[i]! - other[i]!) ** 2;
  }
  return Math.sqrt(sum);
};
/** How far two runs ended from each other, by how far the second went. */
const apart = (a: Finished, b: Finished): number =>
  distance(a.weights, b.weights) / distance(b.weights, pools.policy!.first);
const APART = 1e-4;
function expectTrained({ metrics }: Finished): void {
  expect(metrics).toHaveLength(2);
  for (const step of metrics) expect(step['actor/grad_norm']).toBeGreaterThan(0);
}

beforeAll(async () => {
  expect((await runCommand(['data', 'synth', '--config', join(root, 'configs/debug/tiny.yaml')])).code).toBe(0);
  writeFileSync(
    reward,
    `export const compute_score = ({ trajectory }, { scale = 1 }) => {
       let sum = 0;
       for (const id of trajectory.ids.subarray(trajectory.promptLength)) sum = (31 * sum + id) % 1009;
       return { score: (scale * sum) / 1008, acc: sum % 3 === 0 ? 1 : 0, parity: sum % 2 };
     };`,
  );
  const { config: any } = config('workers', []);
  await open('policy', workerInit(any, 1));
  await open('critic', criticInit(any, 1));
  await open('reference', workerInit(any, 1));
});
afterAll(async () => {
  await Promise.all(Object.values(pools).map(({ pool }) => pool.close()));
  rmSync(dir, { recursive: true, force: true });
});

/** Settings that an estimator needs to differ from GRPO. */
const ESTIMATORS: Record<string, string[]> = {
  gae: [],
  grpo_vectorized: [], // GRPO with the variance floored: see below
  grpo_passk: [],
  rloo: [],
  rloo_vectorized: [],
  reinforce_plus_plus: [],
  reinforce_plus_plus_baseline: [],
  remax: [],
  opo: [],
  gpg: [],
  gdpo: ['algorithm.gdpo_reward_keys=[total,parity]'],
  optimal_token_baseline: [],
  tir_optimal_token_baseline: [],
};

/** Where every update but the first is off-policy and most ratios leave the clip range: on-policy most losses are GRPO's. */
const OFF_POLICY = [
  `${actor}.ppo_epochs=2`,
  `${actor}.ppo_mini_batch_size=1`,
  `${actor}.optim.lr=3e-4`,
  `${actor}.clip_ratio=0.01`,
];
/** Settings in which a loss acts on so few tokens. */
const LOSSES: Record<string, string[]> = {
  gspo: [],
  sapo: [],
  gpg: [],
  clip_cov: [`${actor}.policy_loss={clip_cov_ratio: 0.2, clip_cov_lb: -1, clip_cov_ub: 2}`],
  kl_cov: [`${actor}.policy_loss={kl_cov_ratio: 0.3, ppo_kl_coef: 0.7}`],
  geo_mean: [],
  cispo: [],
  bypass_mode: [`${correction}={rollout_is: token, loss_type: reinforce}`],
  dppo_tv: [],
  dppo_kl: [],
  dro: [`${actor}.policy_loss.dro_beta=0.4`],
};

describe('every estimator', () => {
  let grpo: Finished;
  beforeAll(async () => {
    grpo = await train('grpo');
    expectTrained(grpo);
  });

  it('of the schema is here', () => {
    const all = (): string[] => {
      try {
        config('x', ['algorithm.adv_estimator=none']);
      } catch (error) {
        return /one of (.*), got/.exec((error as Error).message)![1]!.split(', ');
      }
      return [];
    };
    expect([...Object.keys(ESTIMATORS), 'grpo'].sort()).toEqual(all().sort());
  });

  it.each(Object.entries(ESTIMATORS).filter(([name]) => name !== 'grpo_vectorized'))('%s', async (name, settings) => {
    const found = await train(name, `algorithm.adv_estimator=${name}`, ...settings);
    expectTrained(found);
    expect(apart(found, grpo)).toBeGreaterThan(APART);
    if (name.includes('optimal')) expect(found.metrics[0]!['variance_proxy/expected_w']).toBeGreaterThan(0);
  });

  it('grpo_vectorized, where rewards are so small that its floor of the variance shows', async () => {
    const small = 'custom_reward_function.reward_kwargs={scale: 1e-4}';
    const found = await train('vectorized', 'algorithm.adv_estimator=grpo_vectorized', small);
    expectTrained(found);
    expect(apart(found, await train('small', small))).toBeGreaterThan(APART);
  });

  it.each([
    ['Dr.GRPO', ['algorithm.norm_adv_by_std_in_grpo=false']],
    ['entropy bonus', [`${actor}.entropy_coeff=0.1`]],
    ['KL loss', [`${actor}.use_kl_loss=true`, `${actor}.kl_loss_coef=0.5`]],
    ['KL in the reward', ['algorithm.use_kl_in_reward=true', 'algorithm.kl_ctrl.kl_coef=10']],
  ])('%s', async (name, settings) => {
    const found = await train(name.replaceAll(/\W/g, ''), ...settings);
    expectTrained(found);
    expect(apart(found, grpo)).toBeGreaterThan(APART);
    if (name.startsWith('KL')) {
      // The reference is the policy of step 1, and no more that of step 2.
      const key = name === 'KL loss' ? 'actor/kl_loss' : 'actor/reward_kl_penalty';
      expect(Math.abs(found.metrics[0]![key]!)).toBeLessThan(1e-4);
      expect(Math.abs(found.metrics[1]![key]!)).toBeGreaterThan(Math.abs(found.metrics[0]![key]!));
    }
  });
});

describe('every policy loss', () => {
  let vanilla: Finished;
  beforeAll(async () => {
    vanilla = await train('vanilla', ...OFF_POLICY);
    expectTrained(vanilla);
    expect(vanilla.metrics[0]!['actor/pg_clipfrac']).toBeGreaterThan(0);
  });

  it('of the schema is here', () => {
    let message = '';
    try {
      config('x', [`${actor}.policy_loss.loss_mode=none`]);
    } catch (error) {
      ({ message } = error as Error);
    }
    const all = /one of (.*), got/.exec(message)![1]!.split(', ');
    expect([...Object.keys(LOSSES), 'vanilla'].sort()).toEqual(all.sort());
  });

  it.each(Object.entries(LOSSES))('%s', async (name, settings) => {
    const found = await train(`loss-${name}`, ...OFF_POLICY, ...settings, `${actor}.policy_loss.loss_mode=${name}`);
    expectTrained(found);
    expect(apart(found, vanilla)).toBeGreaterThan(APART);
  });
});

describe('a resumed run', () => {
  const RESUMED = ['trainer.save_freq=1'];
  const same = (a: WorkerState, b: WorkerState): void => {
    expect(a.step).toBe(b.step);
    expect(distance(a, b)).toBe(0);
  };

  it('of gae goes on with its critic, which is warmed up alone before', async () => {
    const gae = ['algorithm.adv_estimator=gae', 'algorithm.lam=0.9', 'trainer.critic_warmup=2', ...RESUMED];
    const whole = await train('gae-whole', ...gae);
    const critic = await stateOf(pools.critic!.pool);
    const [first, second] = whole.metrics;
    expect(first!['actor/pg_loss']).toBeUndefined();
    expect(first!['timing_s/update_actor']).toBeUndefined();
    expect(second!['actor/grad_norm']).toBeGreaterThan(0);
    for (const name of ['critic/vf_loss', 'critic/vf_explained_var', 'critic/values/mean', 'critic/returns/mean'])
      expect(first![name], name).toBeTypeOf('number');
    for (const name of ['critic/grad_norm', 'critic/lr', 'timing_s/values', 'timing_s/update_critic'])
      expect(first![name], name).toBeGreaterThan(0);
    await train('gae-halves', ...gae, 'trainer.total_training_steps=1');
    same({ ...(await stateOf(pools.policy!.pool)), step: 0 }, { ...pools.policy!.first, step: 0 });
    const halves = await train('gae-halves', ...gae);
    expect(halves.lines.join('\n')).toContain('resuming from');
    same(halves.weights, whole.weights);
    same(await stateOf(pools.critic!.pool), critic);
  });

  it('with filtered groups draws the batches that the undisturbed run draws', async () => {
    const filter = [
      ...['algorithm.filter_groups={enable: true, metric: acc, max_num_gen_batches: 4}', ...RESUMED],
      ...['reward_model.reward_manager=dapo', 'reward_model.overlong_buffer={enable: true, len: 23, log: true}'],
    ];
    const whole = await train('dapo-whole', ...filter);
    for (const step of whole.metrics) {
      expect(step['train/num_gen_batches']).toBeGreaterThanOrEqual(1);
      expect(step['critic/frac_reward_zero_std']).toBe(0);
      expect(step['reward/overlong_reward/mean']).toBeLessThan(0);
    }
    expect(whole.lines.join('\n')).toMatch(/step 1: \d+ of \d+ questions kept by acc in \d batch/);
    await train('dapo-halves', ...filter, 'trainer.total_training_steps=1');
    const halves = await train('dapo-halves', ...filter);
    same(halves.weights, whole.weights);
    const rolled = (name: string): string =>
      readFileSync(join(dir, name, 'trajectories/train/step_000002.safetensors')).toString('base64');
    expect(rolled('dapo-halves')).toBe(rolled('dapo-whole'));
  });
});

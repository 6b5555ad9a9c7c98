/** @file `pnpm train trainer.pool=ray` on two real Ray nodes: the numbers of local workers, with deaths too, and nothing left behind. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { openActor } from '@frame-thinker/checkpoint';
import { afterAll, beforeAll, beforeEach, describe, expect, inject, it } from 'vitest';
import { runCommand } from '../e2e/processes.ts';
import {
  contentOf,
  scratchOf,
  start,
  survivors,
  trainWords,
  trajectoriesOf,
  untilPhase,
} from '../faults/training-run.ts';
import { processesOf } from './cluster.ts';

const ray = inject('ray');
beforeEach((context) => {
  if ('missing' in ray) context.skip(ray.missing);
});
const runs = mkdtempSync(join(tmpdir(), 'ft-ray-pool-'));
afterAll(() => rmSync(runs, { recursive: true, force: true }));

const STEPS = 3;
const SHARED = [
  ...['data.train_batch_size=4', 'actor_rollout_ref.actor.ppo_mini_batch_size=4', 'actor_rollout_ref.rollout.slots=2'],
  ...['engine.threads=1', `trainer.total_training_steps=${STEPS}`],
];
/** Two cores each: one worker on each of the two nodes. */
const ON_RAY = [
  ...['trainer.pool=ray', 'trainer.n_gpus_per_node=2', 'ray.num_cpus=2'],
  `ray.address=${'address' in ray ? ray.address : ''}`,
];
const dirOf = (name: string): string => join(runs, name);
const words = (name: string, ...more: string[]): string[] => trainWords(dirOf(name), ...SHARED, ...more);

const statOf = (pid: number): string[] => {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  return stat.slice(stat.lastIndexOf(')') + 2).split(' ');
};
/** Pids of the workers on the nodes, in no order. */
const workersOfCluster = (): number[] =>
  processesOf('folder' in ray ? ray.folder : '').filter((pid) =>
    readFileSync(`/proc/${pid}/cmdline`, 'latin1').includes('node-entry.ts'),
  );

function weightsOf(name: string): Map<string, Float32Array> {
  const { model, moments } = openActor(join(dirOf(name), `global_step_${STEPS}/actor`));
  const all = new Map(
    [model, moments].flatMap((from) => from.names.map((tensor) => [tensor, from.read(tensor)] as const)),
  );
  model.close();
  moments.close();
  return all;
}
const distance = (a: Float32Array, b: Float32Array): number => {
  const norm = (values: Iterable<number>): number => Math.sqrt([...values].reduce((sum, x) => sum + x * x, 0));
  return norm(a.map((x, i) => x - b[i]!)) / Math.max(norm(b), 1e-12);
};

describe('training on a Ray cluster', () => {
  beforeAll(async () => {
    if ('missing' in ray) return;
    const { code, lines } = await runCommand(words('local'));
    expect(lines.slice(-20).join('\n')).toContain(`training is complete: ${STEPS} steps`);
    expect(code).toBe(0);
    const pair = await runCommand(words('pair', 'trainer.n_gpus_per_node=2'));
    expect(pair.code).toBe(0);
    const whole = await runCommand(words('ray', ...ON_RAY));
    expect(whole.lines.slice(-20).join('\n')).toContain(`training is complete: ${STEPS} steps`);
    expect(whole.code).toBe(0);
  });

  it('samples what local workers sample, token for token, and learns the same', () => {
    expect(trajectoriesOf(dirOf('ray'))).toEqual(trajectoriesOf(dirOf('local')));
    const [local, remote] = [weightsOf('local'), weightsOf('ray')];
    expect([...remote.keys()].sort()).toEqual([...local.keys()].sort());
    const far = [...remote].filter(
      ([name, data]) => !/k_proj\.bias/.test(name) && distance(data, local.get(name)!) > 1e-5,
    );
    expect(far.map(([name]) => name)).toEqual([]);
    expect(workersOfCluster()).toEqual([]);
  });

  it('leaves what two local workers leave, bit for bit', () => {
    expect(contentOf(dirOf('pair'))).toEqual(contentOf(dirOf('ray')));
  });

  it('survives the death of a worker in a rollout and of an actor in an update, with the same numbers', async () => {
    const run = start(words('disturbed', ...ON_RAY));
    await untilPhase(run, dirOf('disturbed'), { step: 1, phase: 'gen' });
    const [victim] = workersOfCluster();
    process.kill(victim!, 'SIGKILL');
    await untilPhase(run, dirOf('disturbed'), { step: 2, phase: 'update_actor' });
    const other = workersOfCluster().find((pid) => pid !== victim)!;
    const actor = Number(statOf(other)[1]);
    expect(scratchOf(actor)).not.toEqual([]);
    process.kill(actor, 'SIGKILL');
    const { code } = await run.ended;
    const said = run.lines.join('\n');
    expect(said).toMatch(/worker [01] died \(SIGKILL\) in /);
    expect(said).toMatch(/worker [01] died with its actor/);
    expect(said).toContain(`training is complete: ${STEPS} steps`);
    expect(code).toBe(0);
    expect(contentOf(dirOf('disturbed'))).toEqual(contentOf(dirOf('ray')));
    await expect.poll(() => scratchOf(actor), { timeout: 10_000 }).toEqual([]);
  });

  it('leaves no worker behind when the trainer is killed, and goes on from its checkpoint', async () => {
    const run = start(words('killed', ...ON_RAY, 'ray.grace_seconds=1'));
    await untilPhase(run, dirOf('killed'), { step: 2, phase: 'update_actor' });
    const workers = workersOfCluster();
    expect(workers).toHaveLength(2);
    const actors = workers.map((pid) => Number(statOf(pid)[1]));
    run.child.kill('SIGKILL');
    await run.ended;
    expect(await survivors(workers, 60_000)).toEqual([]);
    await expect.poll(() => actors.flatMap(scratchOf), { timeout: 10_000 }).toEqual([]);
    const { code } = await runCommand(words('killed', ...ON_RAY));
    expect(code).toBe(0);
    const { checkpoints, trajectories } = contentOf(dirOf('killed'));
    const undisturbed = contentOf(dirOf('ray'));
    expect(trajectories).toEqual(undisturbed.trajectories);
    expect(checkpoints[STEPS]).toEqual(undisturbed.checkpoints[STEPS]);
  });

  it('is found by the doctor', async () => {
    const { lines } = await runCommand(['doctor', '--ray-address', 'address' in ray ? ray.address : '']);
    expect(lines.join('\n')).toMatch(/ok +Ray +ray:\/\/\S+: Ray 2\.\d+\.\d+ on Python 3\.\S+, 2 nodes/);
  });

  it('says in one line that there is no cluster', async () => {
    const { code, lines } = await runCommand(
      words('nowhere', ...ON_RAY, 'ray.address=ray://127.0.0.1:1', 'ray.start_seconds=1'),
    );
    expect(lines.join('\n')).toMatch(/no session with Ray at ray:\/\/127\.0\.0\.1:1/);
    expect(code).toBe(2);
  });

  it.each([
    [
      ['ray.num_cpus=64', 'ray.start_seconds=3'],
      /worker [01] could not be started: after 3 s it had not started: a worker asks for \{"CPU":64,.*\}, the cluster has free /,
    ],
    [['ray.node=/no/such/node'], /worker [01] could not be started: \/no\/such\/node can't be run/],
    [
      ['ray.checkout=/no/such/checkout'],
      /worker [01] could not be started: \/no\/such\/checkout\/node_modules is not there/,
    ],
  ])('says in one line that workers cannot be started (%s)', async (settings, said) => {
    const { code, lines } = await runCommand(words('unstarted', ...ON_RAY, ...settings));
    expect(lines.at(-1)).toMatch(said);
    expect(lines.join('\n')).not.toMatch(/^ +at /m);
    expect(code).toBe(2);
  });
});

/** @file The whole road with the real commands: train → kill → resume → merge → infer, on the smallest configuration. */
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { openActor, openHfFolder } from '@frame-thinker/checkpoint';
import { fromDiskName } from '@frame-thinker/qwen-vl';
import { afterAll, describe, expect, it } from 'vitest';
import { root, runCommand, start } from './processes.ts';

const runs = mkdtempSync(join(tmpdir(), 'ft-e2e-'));
afterAll(() => rmSync(runs, { recursive: true, force: true }));

const CONFIG = ['--config', join(root, 'configs/debug/tiny.yaml')];
const train = (name: string, ...more: string[]): string[] => [
  'train',
  ...CONFIG,
  `trainer.default_local_dir=${join(runs, name)}`,
  'trainer.total_training_steps=4',
  'actor_rollout_ref.rollout.recompute_log_prob=true',
  ...more,
];
type Line = Record<string, number>;
const jsonLines = <T>(file: string): T[] =>
  readFileSync(file, 'utf8')
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line) as T);
/** Metrics without what depends on the clock. */
const metricsOf = (name: string): Line[] =>
  jsonLines<Line>(join(runs, name, 'metrics.jsonl')).map((line) =>
    Object.fromEntries(Object.entries(line).filter(([key]) => !/^(timing|perf)/.test(key))),
  );
const textsOf = (name: string, step: number): unknown[] =>
  jsonLines<{ uid: string; sample: number; text: string }>(
    join(runs, name, 'trajectories/train', `step_${String(step).padStart(6, '0')}.jsonl`),
  ).map(({ uid, sample, text }) => [uid, sample, text]);
/** Every token that was sampled was compared, within 1e-4, and frames of later turns were among what it saw. */
const expectAgreement = (name: string, metrics: readonly Line[]): void => {
  let looks = 0;
  for (const line of metrics) {
    const rows = jsonLines<{ turns: { role: string; start: number; end: number; frameIndices?: number[] }[] }>(
      join(runs, name, 'trajectories/train', `step_${String(line.step).padStart(6, '0')}.jsonl`),
    );
    const turns = rows.flatMap((row) => row.turns);
    const sampled = turns
      .filter(({ role }) => role === 'assistant')
      .reduce((sum, { start, end }) => sum + end - start, 0);
    expect(line['training/rollout_log_probs_compared']).toBe(sampled);
    expect(line['training/rollout_log_probs_diff_max']).toBeLessThan(1e-4);
    looks += turns.filter(({ frameIndices }) => frameIndices !== undefined && frameIndices.length > 0).length;
  }
  expect(looks).toBeGreaterThanOrEqual(2);
};
const stateOf = (name: string, step: number) => {
  const dir = join(runs, name, `global_step_${step}`);
  const { model, moments } = openActor(join(dir, 'actor'));
  const tensors = new Map<string, Float32Array>();
  for (const tensor of model.names) tensors.set(tensor, model.read(tensor));
  for (const tensor of moments.names) tensors.set(tensor, moments.read(tensor));
  model.close();
  moments.close();
  const extra = readdirSync(join(dir, 'actor')).find((file) => file.startsWith('extra_state'))!;
  const json = (file: string): unknown => JSON.parse(readFileSync(file, 'utf8'));
  return { tensors, extra: json(join(dir, 'actor', extra)), data: json(join(dir, 'data.json')) };
};

describe('train, kill, resume, merge, infer', () => {
  it('trains four steps; rollout and trainer agree on every sampled token', async () => {
    const { code, lines } = await runCommand(train('whole'));
    expect(lines.join('\n')).toContain('training is complete: 4 steps');
    expect(code).toBe(0);
    expectAgreement('whole', metricsOf('whole').slice(1));
    const before = openHfFolder(join(root, 'examples/agent/base'));
    const after = stateOf('whole', 4).tensors;
    const moved = before.names.filter((name) =>
      before.read(name).some((x, i) => x !== after.get(fromDiskName(name))![i]),
    );
    expect(moved.length).toBe(before.names.length);
    before.close();
  });

  it('agrees at temperature 0.7 too', async () => {
    const { code } = await runCommand(
      train(
        'cool',
        'actor_rollout_ref.rollout.temperature=0.7',
        'trainer.val_before_train=false',
        'trainer.total_training_steps=1',
        'data.val_max_samples=1',
      ),
    );
    expect(code).toBe(0);
    expectAgreement('cool', metricsOf('cool'));
  });

  it('killed from outside at any moment and resumed, it is the undisturbed run', async () => {
    const killed = start(train('killed'));
    await killed.line(/^step 1 /);
    const begun = performance.now();
    await killed.line(/^step 2 /);
    // Two steps are left: within the time of one, the run has not ended, however fast the machine is.
    await new Promise((resolve) => setTimeout(resolve, Math.random() * (performance.now() - begun)));
    killed.child.kill('SIGKILL');
    await killed.ended;
    expect(existsSync(join(runs, 'killed/global_step_4/manifest.json'))).toBe(false);

    const resumed = await runCommand(train('killed'));
    expect(resumed.lines.join('\n')).toMatch(/resuming from .*global_step_[123] /);
    expect(resumed.code).toBe(0);
    expect(metricsOf('killed')).toEqual(metricsOf('whole'));
    for (const step of [1, 2, 3, 4]) expect(textsOf('killed', step)).toEqual(textsOf('whole', step));
    expect(stateOf('killed', 4)).toEqual(stateOf('whole', 4));
  });

  it('stops at Ctrl-C with the last step saved, and says at the end that a run is complete', async () => {
    const stopped = start(train('stopped', 'trainer.save_freq=-1', 'trainer.val_before_train=false'));
    await stopped.line(/^step 1 /);
    stopped.child.kill('SIGINT');
    expect(await stopped.ended).toEqual({ code: 130, signal: null });
    expect(readFileSync(join(runs, 'stopped/latest_checkpointed_iteration.txt'), 'utf8').trim()).toMatch(/^[123]$/);

    const again = await runCommand(train('whole'));
    expect(again.lines.join('\n')).toContain('already complete');
    expect(again.code).toBe(0);
    const saving = await runCommand(train('whole', 'trainer.save_freq=3'));
    expect(saving.lines.join('\n')).toMatch(/already complete[\s\S]*changed, .*trainer\.save_freq: 1 → 3/);
    expect(saving.code).toBe(0);
    const another = await runCommand(train('whole', 'actor_rollout_ref.actor.clip_ratio=0.3'));
    expect(another.lines.at(-1)).toContain('actor_rollout_ref.actor.clip_ratio: 0.2 → 0.3');
    expect(another.code).toBe(2);
  });

  it('refuses to resume with another algorithm, and names the key', async () => {
    const { code, lines } = await runCommand(
      train('killed', 'trainer.total_training_steps=5', 'actor_rollout_ref.actor.clip_ratio=0.3'),
    );
    expect(code).toBe(2);
    expect(lines.at(-1)).toContain('actor_rollout_ref.actor.clip_ratio');
  });

  it('goes on from the checkpoint that it is given, and does not call a damaged one complete', async () => {
    const earlier = join(runs, 'killed/global_step_3');
    const back = await runCommand(
      train('killed', 'trainer.resume_mode=resume_path', `trainer.resume_from_path=${earlier}`),
    );
    expect(back.lines.join('\n')).toContain(`resuming from ${earlier} (step 3 of 4)`);
    expect(back.code).toBe(0);
    expect(stateOf('killed', 4)).toEqual(stateOf('whole', 4));

    const shard = join(runs, 'killed/global_step_4/actor/model_world_size_1_rank_0.safetensors');
    const bytes = readFileSync(shard);
    bytes[bytes.length - 5]! ^= 1;
    writeFileSync(shard, bytes);
    const damaged = await runCommand(train('killed'));
    expect(damaged.code).toBe(2);
    expect(damaged.lines.at(-1)).toContain(`trainer.resume_from_path=${earlier}`);
  });

  it('merges to a model folder equal to the weights in memory, and infer answers with it', async () => {
    const merged = join(runs, 'whole/merged');
    const merge = await runCommand([
      ...['merge', '--backend', 'fsdp', '--dtype', 'keep', '--local-dir', join(runs, 'whole/global_step_4/actor')],
      ...['--hf-model-path', join(root, 'examples/agent/base'), '--target-dir', merged],
    ]);
    expect(merge.code).toBe(0);
    const folder = openHfFolder(merged);
    const { tensors } = stateOf('whole', 4);
    for (const name of folder.names) expect(folder.read(name)).toEqual(tensors.get(fromDiskName(name)));
    folder.close();

    const output = join(runs, 'infer');
    const infer = await runCommand([
      ...['infer', '--model', merged, '--dataset', join(root, 'data/synth/7/val.jsonl'), '--output', output],
      ...['--limit', '2', '--max-new-tokens', '96', ...CONFIG],
    ]);
    expect(infer.lines.join('\n')).toMatch(/accuracy/);
    expect(infer.code).toBe(0);
  });
});

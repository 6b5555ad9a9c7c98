/** @file train and infer with engine.name=tfjs, as a user starts them, beside the onnx engine. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { openSafetensors } from '@frame-thinker/checkpoint';
import { loadConfig } from '@frame-thinker/config';
import type { Trajectory } from '@frame-thinker/core';
import { workerEntry } from '@frame-thinker/policy-worker';
import { workerInit } from '@frame-thinker/trainer';
import { type BatchRow, createLocalPool } from '@frame-thinker/worker-pool';
import { afterAll, beforeEach, describe, expect, it } from 'vitest';
import { root, runCommand } from '../e2e/processes.ts';
import { onnxEngine, tfjsEngine } from '../engines/engines.ts';

const runs = mkdtempSync(join(tmpdir(), 'ft-tfjs-'));
afterAll(() => rmSync(runs, { recursive: true, force: true }));
beforeEach(tfjsEngine('node').require);

const TFJS = ['engine.name=tfjs', 'engine.backend=node'];
const config = (name: string) => join(root, 'configs', name);
const jsonLines = <T>(...path: string[]): T[] =>
  readFileSync(join(runs, ...path), 'utf8')
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line) as T);

/** What a run rolled out in a step, as rows to score, and the log-probs that its engine sampled with. */
function rolledOut(run: string, step: number): { rows: BatchRow[]; logProbs: Float32Array[] } {
  const path = join('trajectories/train', `step_${String(step).padStart(6, '0')}`);
  const lines = jsonLines<Pick<Trajectory, 'frames' | 'turns'>>(run, `${path}.jsonl`);
  const file = openSafetensors(join(runs, run, `${path}.safetensors`));
  const [lengths, ids, mask, given] = ['lengths', 'ids', 'mask', 'log_probs'].map((name) => file.read(name).data) as [
    Int32Array,
    Int32Array,
    Uint8Array,
    Float32Array,
  ];
  file.close();
  const ends = lengths.map((_, i) => lengths.subarray(0, i + 1).reduce((sum, length) => sum + length, 0));
  const spans = lines.map((_, i) => [ends[i]! - lengths[i]!, ends[i]!] as const);
  return {
    rows: lines.map(({ frames, turns }, i) => ({
      ids: ids.slice(...spans[i]!),
      mask: mask.slice(...spans[i]!),
      frames,
      promptLength: turns[0]!.start,
    })),
    logProbs: spans.map((span) => given.slice(...span)),
  };
}

describe('train with engine.name=tfjs', () => {
  it('runs the two steps of the smallest configuration', async () => {
    const { code, lines } = await runCommand([
      ...['train', '--config', config('debug/tiny.yaml'), ...TFJS],
      `trainer.default_local_dir=${join(runs, 'tiny')}`,
    ]);
    expect(lines.join('\n')).toContain('training is complete: 2 steps');
    expect(lines).toContain('engine: tfjs on node');
    expect(code).toBe(0);
  });

  it('runs two steps of the main job, and onnx gives the sampled tokens the same log-probs within 1e-4', async (context) => {
    onnxEngine().require(context);
    const overrides = [
      ...['trainer.total_training_steps=2', 'trainer.val_before_train=false', 'data.val_max_samples=2'],
      // The videos that the end-to-end tests render too.
      ...['seed=7', 'train_videos=1', 'val_videos=1', 'test_videos=1', 'val_questions=2', 'test_questions=2'].map(
        (word) => `data.synth.${word}`,
      ),
      ...['data.synth.train_questions=4', 'data.train_batch_size=4', 'actor_rollout_ref.actor.ppo_mini_batch_size=4'],
    ];
    const file = config('frame_thinker.yaml');
    const { code, lines } = await runCommand([
      ...['train', '--config', file, ...TFJS, ...overrides, `trainer.default_local_dir=${join(runs, 'main')}`],
    ]);
    expect(lines.join('\n')).toContain('training is complete: 2 steps');
    expect(code).toBe(0);
    const differences = jsonLines<Record<string, number>>('main', 'metrics.jsonl').flatMap(
      (step) => step['training/rollout_probs_diff_max'] ?? [],
    );
    expect(differences).toHaveLength(2);
    for (const difference of differences) expect(difference).toBeLessThan(1e-4);

    const { rows, logProbs } = rolledOut('main', 1);
    expect(rows).toHaveLength(4 * 8);
    const loaded = loadConfig({ file, overrides: [...overrides, 'engine.provider=cpu'] });
    const worker = await createLocalPool({ entry: workerEntry, init: workerInit(loaded.config, 1) });
    try {
      expect(worker.capabilities).toMatchObject({ engine: 'onnx', provider: 'cpu' });
      const { temperature } = loaded.config.actor_rollout_ref.rollout;
      const score = { temperature, ban: worker.capabilities.visionIds };
      let compared = 0;
      let worst = 0;
      for (let first = 0; first < rows.length; first += 8) {
        const trajectories = rows.slice(first, first + 8);
        const onnx = await worker.forward({ id: `${first}`, trajectories }, score);
        for (const [i, { mask }] of trajectories.entries())
          for (const [k, sampled] of mask.entries()) {
            if (!sampled) continue;
            compared++;
            worst = Math.max(worst, Math.abs(onnx.logProbs[i]![k]! - logProbs[first + i]![k]!));
          }
      }
      expect(compared).toBeGreaterThan(500);
      expect(worst).toBeLessThan(1e-4);
      console.log(
        `tfjs and onnx: ${compared} sampled tokens, largest difference of log-probs ${worst.toExponential(1)}`,
      );
    } finally {
      await worker.close();
    }
  });

  it('is refused in one line for a backend that is not there, and beside keys of the other engine', async () => {
    const train = [
      'train',
      '--config',
      config('debug/tiny.yaml'),
      `trainer.default_local_dir=${join(runs, 'refused')}`,
    ];
    const refused = async (overrides: string[], line: RegExp) => {
      const { code, lines } = await runCommand([...train, ...overrides]);
      expect(code).toBe(2);
      expect(lines.at(-1)).toMatch(line);
    };
    await refused(['engine.name=tfjs', 'engine.backend=gpu'], /engine\.backend gpu: .*tfjs-node-gpu|no NVIDIA GPU/);
    await refused(
      ['engine.backend=wasm'],
      /engine\.backend: wasm is a backend of TensorFlow\.js: set engine\.name=tfjs/,
    );
    await refused(['engine.name=tfjs', 'engine.provider=cpu'], /engine\.provider: cpu is a provider of ONNX Runtime/);
  });
});

describe('infer with engine.name=tfjs', () => {
  it('answers greedily as the onnx engine does', async (context) => {
    onnxEngine().require(context);
    const answers: unknown[] = [];
    for (const [name, ...engine] of [['tfjs', ...TFJS], ['onnx']] as [string, ...string[]][]) {
      const { code, lines } = await runCommand([
        ...['infer', '--config', config('debug/tiny.yaml'), '--model', join(root, 'examples/agent/base')],
        ...['--dataset', join(root, 'data/synth/7/val.jsonl'), '--temperature', '0', '--tries', '1'],
        ...['--max-new-tokens', '96', '--output', join(runs, `infer-${name}`), ...engine],
      ]);
      expect(code, lines.join('\n')).toBe(0);
      expect(lines).toContain(name === 'tfjs' ? 'engine: tfjs on node' : 'engine: onnx on cpu');
      const records = jsonLines<{ row: number; answer?: string; text: string }>(`infer-${name}`, 'records.jsonl');
      answers.push(records.map(({ row, answer, text }) => [row, answer, text]).sort());
    }
    expect(answers[0]).toEqual(answers[1]);
    expect(answers[0]).toHaveLength(2);
  });
});

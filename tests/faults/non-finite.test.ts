/** @file NaN in a gradient: the update is skipped and counted; after so many in a row the run ends, and its batch is kept. */
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { decodeSafetensors } from '@frame-thinker/checkpoint';
import { loadConfig } from '@frame-thinker/config';
import { runTraining, startWorker } from '@frame-thinker/trainer';
import type { PolicyWorker } from '@frame-thinker/worker-pool';
import { afterAll, describe, expect, it } from 'vitest';
import { root } from '../e2e/processes.ts';
import { checkpointHashes, jsonLines, metricsOf, trainWords } from './training-run.ts';

const runs = mkdtempSync(join(tmpdir(), 'ft-nan-'));
afterAll(() => rmSync(runs, { recursive: true, force: true }));
const dir = join(runs, 'run');

/** The worker, given NaN as the gradient of one log-prob in the updates of these steps. */
const poisoned = (worker: PolicyWorker, steps: readonly number[]): PolicyWorker =>
  new Proxy(worker, {
    get(target, name) {
      const value: unknown = Reflect.get(target, name, target);
      if (name !== 'backward') return typeof value === 'function' ? value.bind(target) : value;
      return (...[batch, cotangents, options]: Parameters<PolicyWorker['backward']>) => {
        if (steps.includes(Number(batch.id.split(':')[0]))) {
          const { mask } = batch.trajectories[0]!;
          cotangents.dLogProbs[0]![mask.indexOf(1)] = Number.NaN;
        }
        return target.backward(batch, cotangents, options);
      };
    },
  });

/** Trains in this process, as `pnpm train` does. */
async function train(steps: readonly number[]): Promise<string[]> {
  const lines: string[] = [];
  const [, , file, ...overrides] = trainWords(dir, 'trainer.max_non_finite_updates=2', 'data.val_files=[]');
  // With an entropy bonus no micro-batch is without gradient.
  const loaded = loadConfig({ file: file!, overrides: [...overrides, 'actor_rollout_ref.actor.entropy_coeff=0.001'] });
  await runTraining({
    loaded,
    print: (line) => lines.push(line),
    startWorker: async (config, options) => poisoned(await startWorker(config, options), steps),
  });
  return lines;
}
const weights = (step: number): string[] =>
  Object.entries(checkpointHashes(dir, step)).flatMap(([name, hash]) => (/model_|optim_/.test(name) ? [hash] : []));

describe('a gradient that is not finite', () => {
  it('changes no weight and no moment and is counted; the second in a row ends the run with its batch kept', async () => {
    expect(process.cwd()).toBe(root);
    await expect(train([1, 3, 4])).rejects.toThrow(
      `step 4: the gradient was not finite in 2 updates in a row (trainer.max_non_finite_updates); the last batch is in ${dir}/trajectories/non_finite/step_000004.jsonl`,
    );
    const metrics = metricsOf(dir);
    expect(metrics.map((line) => line['actor/skipped_updates'])).toEqual([1, 0, 1, 1]);
    expect(metrics.map((line) => line['actor/skipped_updates_total'])).toEqual([1, 1, 2, 3]);
    expect(metrics.map((line) => line['actor/grad_norm'] === null)).toEqual([true, false, true, true]);
    expect(weights(2)).not.toEqual(weights(1));
    expect(weights(3)).toEqual(weights(2));
    expect(weights(4)).toEqual(weights(2));
  });

  it('keeps trajectories and tensors of the batch, and the run can be resumed', async () => {
    const dump = join(dir, 'trajectories/non_finite/step_000004');
    const lines = jsonLines<{ uid: string; text: string }>(`${dump}.jsonl`);
    expect(lines).toHaveLength(4);
    const { tensors } = decodeSafetensors(readFileSync(`${dump}.safetensors`));
    const data = (name: string): number[] => Array.from(tensors.get(name)!.data as Float32Array);
    const tokens = data('lengths').reduce((a, b) => a + b, 0);
    expect(data('trained/lines')).toEqual([0, 1, 2, 3]);
    for (const name of ['loss_mask', 'advantages', 'returns', 'old_log_probs'])
      expect(data(`trained/${name}`), name).toHaveLength(tokens);
    expect(data('trained/old_log_probs')).toEqual(data('log_probs'));
    expect(data('trained/loss_mask')).toEqual(data('mask'));

    rmSync(join(dir, 'global_step_4'), { recursive: true });
    const latest = join(dir, 'latest_checkpointed_iteration.txt');
    expect(readFileSync(latest, 'utf8')).toBe('4\n');
    writeFileSync(latest, '3\n');
    expect((await train([])).join('\n')).toContain('training is complete');
    expect(metricsOf(dir).map((line) => line['actor/skipped_updates_total'])).toEqual([1, 1, 2, 2]);
    expect(weights(4)).not.toEqual(weights(2));
    expect(existsSync(`${dump}.jsonl`)).toBe(true);
  });
});

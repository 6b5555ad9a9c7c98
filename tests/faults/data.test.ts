/** @file Videos that vanish while a run reads them, and steps whose rewards teach nothing: the run says so and goes on. */
import { copyFileSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { root, runCommand } from '../e2e/processes.ts';
import { jsonLines, savedSteps, start, trainWords, untilPhase } from './training-run.ts';

const runs = mkdtempSync(join(tmpdir(), 'ft-data-'));
afterAll(() => rmSync(runs, { recursive: true, force: true }));

type Metrics = Record<string, number>;
interface Row {
  extra_info: { video_path: string };
}
interface Line {
  uid: string;
  end: string;
  error?: string;
  reward: { total: number } | null;
  advantage: number | null;
  turns: { error?: string }[];
}
const metricsOf = (dir: string): Metrics[] => jsonLines<Metrics>(join(dir, 'metrics.jsonl'));
const linesOf = (dir: string, step: number): Line[] =>
  jsonLines<Line>(join(dir, `trajectories/train/step_00000${step}.jsonl`));

describe('a video that vanishes mid-run', () => {
  it('leaves its episodes out, counted; without any other video the run ends, and goes on when it is back', async () => {
    const folder = join(root, 'data/synth/7');
    const [first, ...others] = readFileSync(join(folder, 'train.jsonl'), 'utf8').trim().split('\n');
    const [stays, goes] = [join(runs, 'stays.mp4'), join(runs, 'goes.mp4')];
    for (const video of [stays, goes])
      copyFileSync(join(folder, (JSON.parse(first!) as Row).extra_info.video_path), video);
    const rows = [stays, stays, goes, stays, goes, goes].map((video_path, i) => {
      const row = JSON.parse([first, ...others][i % (1 + others.length)]!) as Row;
      return { ...row, extra_info: { ...row.extra_info, video_path } };
    });
    const file = join(runs, 'rows.jsonl');
    writeFileSync(file, rows.map((row) => JSON.stringify(row)).join('\n'));
    const dir = join(runs, 'vanishing');
    const words = trainWords(
      dir,
      `data.train_files=${file}`,
      'data.val_files=[]',
      'data.synth=null',
      'data.shuffle=false',
    ).concat('trainer.total_training_steps=3');

    const run = start(words);
    await untilPhase(run, dir, { step: 1, phase: 'gen' });
    renameSync(goes, `${goes}.away`);
    expect((await run.ended).code).toBe(1);
    expect(run.lines.at(-1)).toMatch(
      /^step 3: none of the 4 episodes could read its video or images \(row \d+: .*goes\.mp4.*\); check the files/,
    );
    expect(run.lines.filter((line) => /^\s+at |bug of Frame Thinker/.test(line))).toEqual([]);
    const [whole, half, ...more] = metricsOf(dir);
    expect(more).toEqual([]);
    expect(whole!['agent/error/decode_error']).toBeUndefined();
    expect(half).toMatchObject({ 'agent/error/decode_error': 2, 'agent/end/decode_error': 0.5 });
    const lines = linesOf(dir, 2);
    expect(lines.map(({ end }) => end === 'decode_error')).toEqual([true, true, false, false]);
    for (const { end, error, reward, advantage, turns } of lines)
      if (end === 'decode_error') {
        expect({ error, reward, advantage }).toEqual({ error: 'decode_error', reward: null, advantage: null });
        expect(turns[0]!.error).toContain('goes.mp4');
      } else expect(reward).not.toBeNull();
    expect(savedSteps(dir)).toEqual([1, 2]);

    renameSync(`${goes}.away`, goes);
    expect((await runCommand(words)).code).toBe(0);
    expect(metricsOf(dir)[2]!['agent/error/decode_error']).toBeUndefined();
  });
});

describe('a step in which all groups agree', () => {
  it('says that there is no gradient, and why', async () => {
    const reward = join(runs, 'reward.mjs');
    writeFileSync(
      reward,
      `export const compute_score = ({ trajectory: { step } }) => {
         if (step === 3) throw new Error('no score');
         return step === 1 ? 0 : 0.75;
       };`,
    );
    const { code, lines } = await runCommand(
      trainWords(join(runs, 'agreeing'), `custom_reward_function.path=${reward}`, 'data.val_files=[]').concat(
        'trainer.total_training_steps=3',
      ),
    );
    expect(code).toBe(0);
    const said = lines.filter((line) => line.includes('no gradient in this step'));
    expect(said).toEqual([
      expect.stringContaining('all rewards are 0. The advantages compare the samples of one question; raise rollout.n'),
      expect.stringContaining('every group agrees with itself'),
      expect.stringContaining('no trajectory counts'),
    ]);
    // What else has a gradient is not said to have none.
    const entropy = await runCommand(
      trainWords(join(runs, 'entropy'), `custom_reward_function.path=${reward}`, 'data.val_files=[]').concat(
        'trainer.total_training_steps=1',
        'actor_rollout_ref.actor.entropy_coeff=0.01',
      ),
    );
    expect(entropy.lines.join('\n')).not.toContain('no gradient');
    expect(metricsOf(join(runs, 'entropy'))[0]!['actor/grad_norm']).toBeGreaterThan(0);
    // A filter that keeps no question stands by one that it left out, which must teach nothing though its totals differ.
    const totals = join(runs, 'totals.mjs');
    writeFileSync(totals, 'export const compute_score = ({ trajectory: { sample } }) => ({ score: sample, acc: 1 });');
    await runCommand(
      trainWords(join(runs, 'filtered'), `custom_reward_function.path=${totals}`, 'data.val_files=[]').concat(
        'trainer.total_training_steps=1',
        'algorithm.filter_groups={enable: true, metric: acc, max_num_gen_batches: 1}',
      ),
    );
    const [filtered] = metricsOf(join(runs, 'filtered'));
    expect(filtered).toMatchObject({ 'actor/grad_norm': 0, 'critic/frac_reward_zero_std': 0 });
    const metrics = metricsOf(join(runs, 'agreeing'));
    expect(metrics.map((line) => [line['critic/frac_reward_zero_std'], line['actor/grad_norm']])).toEqual([
      [1, 0],
      [1, 0],
      [1, 0],
    ]);
  });
});

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { loadConfig } from '@frame-thinker/config';
import { afterAll, describe, expect, it } from 'vitest';
import { openTrainingData } from './training-data.ts';

const dir = mkdtempSync(join(tmpdir(), 'ft-training-data-'));
afterAll(() => rmSync(dir, { recursive: true }));
const MODEL = join(import.meta.dirname, '../../../examples/agent/base');

const text = (content: string, more: object = {}) => ({
  ...{ prompt: [{ role: 'user', content }], data_source: 's', reward_model: { ground_truth: 'A' }, ...more },
});
const facts = { fps: 24, total_frames: 240, width: 112, height: 56 };
/** A row whose video is there; nothing reads it, since the row says all that its prompt needs. */
const looks = (path: string) =>
  text('what is it?', { env_name: 'think_with_video', extra_info: { video_path: path, ...facts } });
function file(name: string, rows: readonly unknown[]): string {
  const lines = rows.map((row) => (typeof row === 'string' ? row : JSON.stringify(row)));
  writeFileSync(join(dir, name), lines.join('\n'));
  return join(dir, name);
}

async function open(files: readonly string[], ...overrides: string[]) {
  const lines: string[] = [];
  const { config } = loadConfig({
    overrides: [
      `actor_rollout_ref.model.path=${MODEL}`,
      `data.train_files=${JSON.stringify(files)}`,
      ...['data.val_files=[]', 'data.train_batch_size=2', 'data.system_prompt=none', 'data.max_prompt_length=160'],
      ...overrides,
    ],
  });
  const data = await openTrainingData(config, { jobs: 1, print: (line) => lines.push(line.replaceAll(`${dir}/`, '')) });
  return { ...data, lines };
}

writeFileSync(join(dir, 'v.mp4'), '');
const long = text('long '.repeat(400));
const mixed = [looks('v.mp4'), '{oops', looks(join(dir, 'v.mp4')), looks('gone.mp4'), long, looks(join(dir, 'v.mp4'))];

describe('the rows of a run', () => {
  it('say once what was left out, by reason with the first place, and what is absolute', async () => {
    const { train, lines } = await open(
      [file('mixed.jsonl', mixed)],
      'data.skip_broken_rows=true',
      'data.filter_overlong_prompts=true',
    );
    expect(train.map(({ uid }) => uid)).toEqual(['0', '2', '5']);
    expect(lines).toEqual([
      'training data: 2 rows name their video by an absolute path',
      expect.stringMatching(
        /^training data: 2 broken rows are left out \(data\.skip_broken_rows\): 1 x not JSON \(first: mixed\.jsonl:2: .*; 1 x no such video \(first: mixed\.jsonl:4: gone\.mp4\)$/,
      ),
      expect.stringMatching(
        /^training data: 1 rows are left out \(data\.filter_overlong_prompts\): prompts longer than data\.max_prompt_length = 160 tokens/,
      ),
    ]);
  });

  it('end the run at the first that cannot be used, by default, with its place', async () => {
    await expect(open([file('json.jsonl', mixed)])).rejects.toThrow(/json\.jsonl:2: not JSON/);
    await expect(open([file('gone.jsonl', mixed.toSpliced(1, 1))])).rejects.toThrow(
      /gone\.jsonl:3: .*gone\.mp4: no such video$/,
    );
    await expect(open([file('long.jsonl', [text('a'), text('b'), long])])).rejects.toThrow(
      /long\.jsonl:3: row 2: the prompt has \d+ tokens/,
    );
    await expect(open([file('only.jsonl', [long])], 'data.filter_overlong_prompts=true')).rejects.toThrow(
      /only\.jsonl: no row is left to use/,
    );
  });

  it('of several files are drawn together, by data.seed, anew in each epoch, whole batches only', async () => {
    const files = ['a', 'b'].map((name) =>
      file(`${name}.jsonl`, [0, 1, 2].map((i) => text(`${name}${i}`)).concat(name === 'a' ? [text('a3')] : [])),
    );
    const epochs = async (...overrides: string[]) => {
      const { train, sampler } = await open(files, ...overrides);
      return [0, 1].map((epoch) =>
        Array.from({ length: sampler.stepsPerEpoch }, (_, i) => sampler.rowsOf(epoch * sampler.stepsPerEpoch + i + 1))
          .flat()
          .map((row) => train[row]!.prompt[0]!.content),
      );
    };
    const [first, second] = await epochs();
    for (const epoch of [first!, second!]) expect([epoch.length, new Set(epoch).size]).toEqual([6, 6]);
    expect(second).not.toEqual(first);
    expect(await epochs()).toEqual([first, second]);
    expect(await epochs('data.seed=77')).not.toEqual([first, second]);
    expect((await epochs('data.shuffle=false'))[0]).toEqual(['a0', 'a1', 'a2', 'a3', 'b0', 'b1']);
  });
});

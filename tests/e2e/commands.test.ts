/** @file The other commands as a user starts them: score, merge, infer; and bad input, which is one line and exit code 2. */
import { spawnSync } from 'node:child_process';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { tinyPolicyFiles } from '@frame-thinker/benchmark';
import { openHfFolder, saveCheckpoint, shardFileName } from '@frame-thinker/checkpoint';
import { initialise, parameterSpecs, parseConfig, toDiskName } from '@frame-thinker/qwen-vl';
import { renderScene } from '@frame-thinker/video';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { root, runCommand, start } from './processes.ts';

const cwd = mkdtempSync(join(tmpdir(), 'ft-commands-'));
afterAll(() => rmSync(cwd, { recursive: true, force: true }));
const at = (...parts: string[]): string => join(cwd, ...parts);
const jsonLines = <T>(file: string): T[] =>
  readFileSync(file, 'utf8')
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line) as T);
const writeLines = (file: string, rows: readonly unknown[]): void =>
  writeFileSync(file, rows.map((row) => `${JSON.stringify(row)}\n`).join(''));

/** Runs to the end and expects exit code 2 with one line that matches, last of what was printed. */
async function refused(args: readonly string[], message: RegExp): Promise<void> {
  const { code, lines } = await runCommand(args, { cwd });
  expect({ code, last: lines.at(-1) }).toEqual({ code: 2, last: expect.stringMatching(message) });
  expect(lines.filter((line) => /^\s+at |bug of Frame Thinker/.test(line))).toEqual([]);
}

const policy = parseConfig(tinyPolicyFiles({ hidden: 32, layers: 1, visionHidden: 16, visionDepth: 1 }).config);
const weights = initialise(policy, 5);
const tensors = parameterSpecs(policy).map(({ name, shape }) => ({
  name: toDiskName(name),
  shape,
  read: () => weights.get(name)!,
}));
const [run, actor] = [at('runs/p/e'), at('runs/p/e/global_step_3/actor')];

beforeAll(async () => {
  mkdirSync(at('base'));
  for (const [name, text] of Object.entries(
    tinyPolicyFiles({ hidden: 32, layers: 1, visionHidden: 16, visionDepth: 1 }).files,
  ))
    writeFileSync(at('base', name), text);
  await saveCheckpoint({
    dir: run,
    step: 3,
    worldSize: 2,
    actor: { model: tensors, moments: [] },
    extraState: {},
    dataState: {},
    hfFiles: at('base'),
    keep: null,
  });
  for (const name of ['one.mp4', 'two.mp4'])
    await renderScene({ width: 112, height: 56, fps: 24, frames: 240, background: [30, 30, 30], boxes: [] }, at(name));
  const row = (video: string) => ({ video, question: 'What colour?', options: ['red', 'blue'], answer: 'A' });
  writeLines(at('rows.jsonl'), [row('one.mp4'), row('two.mp4')]);
  writeLines(at('missing.jsonl'), [row('gone.mp4'), row('gone-too.mp4')]);
  writeFileSync(
    at('env.yaml'),
    [
      'data: { system_prompt: none }',
      'env:',
      '  short: { frames: 2, max_width: 56, max_height: 56 }',
      '  long: { frames: 2, max_width: 56, max_height: 56 }',
      'actor_rollout_ref: { rollout: { slots: 2 } }',
      '',
    ].join('\n'),
  );
});

describe('score', () => {
  it('gives the original rewards of rows, counts errors, and scores saved tries', async () => {
    interface Row {
      output: { total: number; acc: number; format: number; other: number } | { error: string };
    }
    const rows = JSON.parse(
      readFileSync(join(process.env.GOLDEN_DIR ?? join(root, 'tests/fixtures'), 'agent/reward_v11.json'), 'utf8'),
    ) as Row[];
    const chosen = [...rows.slice(0, 60), ...rows.filter(({ output }) => 'error' in output)];
    writeLines(at('texts.jsonl'), chosen);
    const { code, lines } = await runCommand(
      ['score', '--reward', 'ccv-v11', '--input', 'texts.jsonl', '--output', 'scores.jsonl'],
      { cwd },
    );
    expect(code).toBe(0);
    const scored = jsonLines<Record<string, number>>(at('scores.jsonl'));
    chosen.forEach(({ output }, i) => {
      const expected = 'error' in output ? { total: 0, acc: 0, format: 0, other: 0 } : output;
      expect(scored[i]).toMatchObject(expected);
    });
    expect(lines.at(-1)).toMatch(new RegExp(`^${chosen.length} rows: .* errors`));
    await refused(
      ['score', '--reward', 'ccv', '--input', 'texts.jsonl', '--output', 'scores.jsonl'],
      /row 1: .*no turns; score plain texts with ccv-v11/,
    );
    expect(jsonLines(at('scores.jsonl'))).toEqual(scored);
  });

  it('refuses input and output that are not usable', async () => {
    writeFileSync(at('torn.jsonl'), '{"solution_str": "a", "ground_truth": "A", "extra_info": {}}\n{"solution');
    const score = (input: string, output: string) => [
      'score',
      '--reward',
      'ccv-v11',
      '--input',
      input,
      '--output',
      output,
    ];
    await refused(score('torn.jsonl', 'out.jsonl'), /torn\.jsonl:2: not JSON/);
    await refused(score('nothing.jsonl', 'out.jsonl'), /nothing\.jsonl: cannot be read/);
    await refused(score('texts.jsonl', 'texts.jsonl/out.jsonl'), /cannot be written/);
    expect(existsSync(at('out.jsonl'))).toBe(false);
  });
});

describe('merge', () => {
  it('takes the newest checkpoint when told only where to write, and writes the weights as they are', async () => {
    const { code, lines } = await runCommand(['merge', '--target_dir', 'runs/p/e/merged'], { cwd });
    expect(lines.join('\n')).toContain('merging step 3 of runs/p/e');
    expect(code).toBe(0);
    const merged = openHfFolder(at('runs/p/e/merged'));
    for (const { name, read } of tensors) expect(merged.read(name), name).toEqual(read());
    merged.close();
  });

  it('refuses a truncated checkpoint and leaves the earlier result alone', async () => {
    const before = statSync(at('runs/p/e/merged/model.safetensors'));
    await saveCheckpoint({
      dir: at('broken'),
      step: 1,
      worldSize: 2,
      actor: { model: tensors, moments: [] },
      extraState: {},
      dataState: {},
      hfFiles: at('base'),
      keep: null,
    });
    const shard = at('broken/global_step_1/actor', shardFileName('model', 2, 1));
    truncateSync(shard, statSync(shard).size - 100);
    const local = ['merge', '--local-dir', 'broken/global_step_1/actor'];
    await refused([...local, '--target-dir', 'runs/p/e/merged'], /model_world_size_2_rank_1/);
    expect(statSync(at('runs/p/e/merged/model.safetensors'))).toMatchObject({ size: before.size, ino: before.ino });
    await refused(['merge', '--local-dir', 'nowhere', '--target-dir', 'out'], /nowhere/);
    await refused(['merge', '--local-dir', actor, '--target-dir', 'rows.jsonl/out'], /rows\.jsonl/);
    await refused(['merge', '--target-dri', 'out'], /did you mean "--target-dir"/);
  });
});

describe('infer', () => {
  const infer = (...more: string[]): string[] => [
    ...['infer', '--config', 'env.yaml', '--dataset', 'rows.jsonl', '--max-new-tokens', '8', '--tries', '2'],
    ...['engine.threads=1', ...more],
  ];
  const records = at('runs/infer/e-merged-rows/records.jsonl');

  it('evaluates the newest merged model, goes on after Ctrl-C, and does nothing twice', async () => {
    const first = start(infer(), { cwd });
    await first.line(/^infer {2}/);
    first.child.kill('SIGINT');
    const { code } = await first.ended;
    const kept = existsSync(records) ? readFileSync(records, 'utf8') : '';
    expect([0, 130]).toContain(code);
    expect(first.lines.at(-1)).toMatch(code === 130 ? /^stopped; the same command goes on from / : /records\.jsonl$/);

    const second = await runCommand(infer(), { cwd });
    expect(second.code).toBe(0);
    expect(second.lines.join('\n')).toMatch(/questions +2\n/);
    const whole = readFileSync(records, 'utf8');
    expect(whole.startsWith(kept)).toBe(true);
    expect(
      jsonLines<{ row: number; final: boolean }>(records)
        .filter(({ final }) => final)
        .map(({ row }) => row)
        .sort(),
    ).toEqual([0, 1]);
    expect(JSON.parse(readFileSync(at('runs/infer/e-merged-rows/report.json'), 'utf8'))).toMatchObject({
      questions: 2,
      unreadable: 0,
    });

    expect((await runCommand(infer(), { cwd })).code).toBe(0);
    expect(readFileSync(records, 'utf8')).toBe(whole);
    await refused(infer('--temperature', '0'), /other settings \(sampling\.temperature: 0\.6 → 0/);
    expect(readFileSync(records, 'utf8')).toBe(whole);
  });

  it('draws the same, question by question, in other batches', async () => {
    const other = await runCommand(infer('--output', 'again', 'actor_rollout_ref.rollout.slots=1'), { cwd });
    expect(other.code).toBe(0);
    const texts = (file: string) =>
      jsonLines<{ row: number; try: number; text: string }>(file)
        .map(({ row, try: attempt, text }) => `${row}.${attempt} ${text}`)
        .sort();
    expect(texts(at('again/records.jsonl'))).toEqual(texts(records));
  });

  it('answers from one uniform look at twice the frames, and from grey ones', async () => {
    const shown = async (...more: string[]) => {
      const output = `out-${more.join('')}`;
      expect((await runCommand(infer('--output', output, '--tries', '1', ...more), { cwd })).code).toBe(0);
      return jsonLines<{ frames: { index: number; sha256: string }[]; turns: { text: string }[] }>(
        at(output, 'records.jsonl'),
      );
    };
    const uniform = await shown('--strategy', 'uniform', '--prefill', '<think> guess');
    for (const { frames, turns } of uniform) {
      expect(frames.map(({ index }) => index)).toEqual([0, 79, 159, 239]);
      expect(turns).toHaveLength(1);
      expect(turns[0]!.text.startsWith('<think> guess')).toBe(true);
    }
    const grey = await shown('--frames-from', 'grey');
    expect(new Set(grey.flatMap(({ frames }) => frames.map(({ sha256 }) => sha256))).size).toBe(1);
  });

  it('refuses a model whose config.json is broken, naming what is wrong in it', async () => {
    mkdirSync(at('damaged'));
    for (const name of readdirSync(at('base'))) copyFileSync(at('base', name), at('damaged', name));
    const config = JSON.parse(readFileSync(at('base/config.json'), 'utf8')) as { text_config: object };
    const changed = (more: object): string =>
      JSON.stringify({ ...config, text_config: { ...config.text_config, ...more } });
    for (const [text, message] of [
      ['{ "model_type":\n\n oops }', /^damaged: config\.json: damaged: not JSON \(.*\)$/],
      [changed({ hidden_size: undefined }), /^damaged: config\.json: text_config\.hidden_size is missing$/],
      [
        changed({ num_hidden_layers: 'two' }),
        /^damaged: config\.json: text_config\.num_hidden_layers must be .* "two"$/,
      ],
    ] as const) {
      writeFileSync(at('damaged/config.json'), text);
      await refused(infer('--model', 'damaged', '--output', `from-${text.length}`), message);
    }
  });

  it('refuses what it cannot evaluate', async () => {
    await refused(infer('--model', 'base'), /base: .*safetensors/);
    await refused(infer('--model', 'nowhere'), /nowhere: no model here/);
    await refused(infer('--dataset', 'missing.jsonl', '--output', 'x'), /gone\.mp4/);
    await refused(infer('--config', 'nowhere.yaml'), /nowhere\.yaml/);
    writeFileSync(at('bad.yaml'), 'env:\n  shrot: {}\n');
    await refused(infer('--config', 'bad.yaml'), /bad\.yaml:2:3 .*did you mean "short"/);
    await refused(infer('--output', 'rows.jsonl/out'), /cannot be written/);
    await refused(infer('--tries', '0'), /--tries 0/);
  });
});

/** A file system of `size` at `dir`; false where this user may not mount one. */
function mountSmall(dir: string, size: string): boolean {
  mkdirSync(dir);
  return spawnSync('mount', ['-t', 'tmpfs', '-o', `size=${size}`, 'none', dir]).status === 0;
}

describe('a full disk', () => {
  it('is one line; what was written before stays', async ({ skip }) => {
    const small = at('small');
    if (!mountSmall(small, '8k')) skip('this user may not mount a small file system');
    try {
      writeLines(join(small, 'scores.jsonl'), [{ total: 1 }]);
      await refused(
        ['score', '--reward', 'ccv-v11', '--input', 'texts.jsonl', '--output', 'small/scores.jsonl'],
        /no space left/,
      );
      expect(jsonLines(join(small, 'scores.jsonl'))).toEqual([{ total: 1 }]);
      await refused(['merge', '--local-dir', actor, '--target-dir', 'small/merged'], /no space left/);
      expect(readdirSync(small)).toEqual(['scores.jsonl']);
      await refused(
        [
          ...['infer', '--config', 'env.yaml', '--dataset', 'rows.jsonl', '--max-new-tokens', '200', '--tries', '9'],
        ].concat(['--output', 'small/infer', 'engine.threads=1']),
        /no space left/,
      );
    } finally {
      spawnSync('umount', ['-l', small]);
    }
  });
});

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { CompressionCodec, SchemaElement } from 'hyparquet';
import { parquetWriteFile } from 'hyparquet-writer';
import { afterAll, describe, expect, it } from 'vitest';
import { countReasons } from './data-files.ts';
import { type RowOptions, readRows } from './samples.ts';

const dir = mkdtempSync(join(tmpdir(), 'ft-samples-'));
afterAll(() => rmSync(dir, { recursive: true }));
const columns = { prompt: 'prompt', images: 'images', source: 'data_source', environment: 'env_name' };
const options: RowOptions = { columns, allowAbsolutePaths: true, skipBroken: false, maxSamples: -1 };
const samplesOf = async (files: string[], more: Partial<RowOptions> = {}) =>
  (await readRows(files, { ...options, ...more })).rows.map(({ sample }) => sample);
const file = (name: string, text: string): string => {
  writeFileSync(join(dir, name), text);
  return join(dir, name);
};
const row = {
  prompt: [{ role: 'user', content: 'q' }],
  data_source: 's',
  env_name: 'e',
  reward_model: { ground_truth: 'A' },
  extra_info: { video_path: 'v/a.mp4', fps: '24', total_frames: 48 },
};

describe('data files', () => {
  it('reads rows in verl form, video paths against the file', async () => {
    const [sample] = await samplesOf([file('a.jsonl', `${JSON.stringify(row)}\n`)]);
    expect(sample).toMatchObject({
      uid: '0',
      videoPath: join(dir, 'v/a.mp4'),
      fps: 24,
      totalFrames: 48,
      groundTruth: 'A',
      envName: 'e',
      dataSource: 's',
    });
  });
  it('reads short rows, lists and several files, and numbers them through', async () => {
    const short = { video: 'a.mp4', question: 'What?', options: ['red', 'blue'], answer: 'B' };
    const lettered = { ...short, options: ['A. red', 'B. blue'] };
    const files = [file('b.json', JSON.stringify([short, lettered])), file('c.jsonl', JSON.stringify(row))];
    const samples = await samplesOf(files);
    expect(samples.map(({ uid }) => uid)).toEqual(['0', '1', '2']);
    expect(samples[0]?.prompt[0]?.content).toBe('What?\nA: red\nB: blue');
    expect(samples[1]?.prompt[0]?.content).toBe('What?\nA. red\nB. blue');
    expect(await samplesOf(files, { maxSamples: 2 })).toHaveLength(2);
  });
  it.each([
    ['not JSON', 'x.jsonl', `${JSON.stringify(row)}\n{oops\n`, /x\.jsonl:2: not JSON/],
    [
      'a row without answer',
      'y.jsonl',
      JSON.stringify({ ...row, reward_model: {} }),
      /y\.jsonl:1: reward_model\.ground_truth/,
    ],
    [
      'a path out of the folder',
      'z.jsonl',
      JSON.stringify({ ...row, extra_info: { video_path: '../a.mp4' } }),
      /leads out of/,
    ],
    ['an empty file', 'e.jsonl', '\n', /no rows/],
    ['a broken parquet file', 'p.parquet', 'PAR1', /p\.parquet: not a readable parquet file/],
    ['another kind of file', 'p.csv', 'a,b', /end in \.parquet, \.json or \.jsonl/],
    [
      'a mark in a text without images, with row and column',
      'm.jsonl',
      JSON.stringify({ ...row, prompt: [{ role: 'user', content: 'an <image>?' }] }),
      /m\.jsonl:1: row 0, column prompt\[0\], character 4/,
    ],
    [
      'marks and images that differ in number',
      'n.jsonl',
      JSON.stringify({ ...row, prompt: [{ role: 'user', content: '<image> <image>' }], images: ['e.jsonl'] }),
      /n\.jsonl:1: row 0: 2 "<image>" marks in the prompt, but 1 images/,
    ],
    ['a missing image', 'i.jsonl', JSON.stringify({ ...row, images: ['none.png'] }), /none\.png: no such image/],
  ])('refuses %s with its place', async (_, name, text, message) => {
    file('e.jsonl', '\n');
    await expect(samplesOf([file(name, text)])).rejects.toThrow(message);
  });
  it('refuses a missing file, and absolute paths when asked to', async () => {
    await expect(samplesOf([join(dir, 'none.jsonl')])).rejects.toThrow(/no such data file/);
    const absolute = file('abs.jsonl', JSON.stringify({ ...row, extra_info: { video_path: '/v/a.mp4' } }));
    const read = await readRows([absolute], options);
    expect(read.rows[0]?.sample.videoPath).toBe('/v/a.mp4');
    expect(read.absolutePaths).toBe(1);
    await expect(samplesOf([absolute], { allowAbsolutePaths: false })).rejects.toThrow(/is absolute/);
  });
  it('leaves broken rows out when asked to, and counts them by reason; the others keep their numbers', async () => {
    const noAnswer = { ...row, reward_model: {} };
    const lines = [
      JSON.stringify(row),
      '{oops',
      JSON.stringify(noAnswer),
      JSON.stringify(noAnswer),
      JSON.stringify(row),
    ];
    const { rows, leftOut } = await readRows([file('mixed.jsonl', lines.join('\n'))], { ...options, skipBroken: true });
    expect(rows.map(({ sample, where }) => [sample.uid, where])).toEqual([
      ['0', join(dir, 'mixed.jsonl:1')],
      ['4', join(dir, 'mixed.jsonl:5')],
    ]);
    const reasons = countReasons(leftOut);
    expect(reasons).toHaveLength(2);
    expect(reasons[0]).toMatch(/^1 x not JSON \(first: .*mixed\.jsonl:2: not JSON/);
    expect(reasons[1]).toMatch(/^2 x reward_model\.ground_truth: .*\(first: .*mixed\.jsonl:3/);
  });
  it('takes a row whose environment is none for broken, at the start and not when it is drawn', async () => {
    const lines = [row, { ...row, env_name: 'think_with_vidoe' }].map((line) => JSON.stringify(line));
    const path = file('environments.jsonl', lines.join('\n'));
    const environments = ['e'];
    const { rows, leftOut } = await readRows([path], { ...options, environments, skipBroken: true });
    expect(rows).toHaveLength(1);
    expect(countReasons(leftOut)[0]).toMatch(
      /^1 x unknown environment \(first: .*environments\.jsonl:2: env_name "think_with_vidoe" is not known/,
    );
    await expect(readRows([path], { ...options, environments })).rejects.toThrow(/environments\.jsonl:2: env_name/);
  });
  it('refuses a file in which no row is left', async () => {
    await expect(samplesOf([file('all.jsonl', '{oops')], { skipBroken: true })).rejects.toThrow(/all 1 are broken/);
  });
  it('takes the columns that it is told', async () => {
    const other = { chat: row.prompt, pictures: null, kind: 'k', tool: 't', reward_model: row.reward_model };
    const [sample] = await samplesOf([file('columns.jsonl', JSON.stringify(other))], {
      columns: { prompt: 'chat', images: 'pictures', source: 'kind', environment: 'tool' },
    });
    expect(sample).toMatchObject({ prompt: row.prompt, dataSource: 'k', envName: 't' });
  });
});

describe('parquet', () => {
  const png = Uint8Array.from([0x89, 0x50, 0x4e, 0x47, 1, 2, 3]);
  const rows = [0, 1, 2, 3, 4].map((i) => ({
    data_source: 's',
    env_name: i === 4 ? null : 'think_with_video',
    prompt: [{ role: 'user', content: i === 1 ? 'see <image> and <image>' : `question ${i}` }],
    images:
      i === 1
        ? [
            { bytes: png, path: 'elsewhere.png' },
            { bytes: null, path: 'here.png' },
          ]
        : null,
    reward_model: { style: 'rule', ground_truth: 'ABCDE'[i]! },
    extra_info: {
      index: BigInt(i),
      video_path: i < 3 ? 'v/a.mp4' : null,
      fps: i === 2 ? null : 25,
      total_frames: BigInt(100),
    },
  }));
  const text = { type: 'BYTE_ARRAY', converted_type: 'UTF8', repetition_type: 'OPTIONAL' } as const;
  const list = (name: string, children: SchemaElement[], fields: number): SchemaElement[] => [
    { name, converted_type: 'LIST', repetition_type: 'OPTIONAL', num_children: 1 },
    { name: 'list', repetition_type: 'REPEATED', num_children: 1 },
    { name: 'element', repetition_type: 'OPTIONAL', num_children: fields },
    ...children,
  ];
  const schema: SchemaElement[] = [
    { name: 'root', num_children: 6 },
    { name: 'data_source', ...text },
    { name: 'env_name', ...text },
    ...list(
      'prompt',
      [
        { name: 'role', ...text },
        { name: 'content', ...text },
      ],
      2,
    ),
    ...list(
      'images',
      [
        { name: 'bytes', type: 'BYTE_ARRAY', repetition_type: 'OPTIONAL' },
        { name: 'path', ...text },
      ],
      2,
    ),
    { name: 'reward_model', repetition_type: 'OPTIONAL', num_children: 2 },
    { name: 'style', ...text },
    { name: 'ground_truth', ...text },
    { name: 'extra_info', repetition_type: 'OPTIONAL', num_children: 4 },
    { name: 'index', type: 'INT64', repetition_type: 'OPTIONAL' },
    { name: 'video_path', ...text },
    { name: 'fps', type: 'DOUBLE', repetition_type: 'OPTIONAL' },
    { name: 'total_frames', type: 'INT64', repetition_type: 'OPTIONAL' },
  ];
  const write = (name: string, codec: CompressionCodec): string => {
    const names = ['data_source', 'env_name', 'prompt', 'images', 'reward_model', 'extra_info'] as const;
    const columnData = names.map((column) => ({ name: column, data: rows.map((r) => r[column]) }));
    parquetWriteFile({ filename: join(dir, name), columnData, schema, codec, rowGroupSize: 2 });
    return join(dir, name);
  };
  it.each(['SNAPPY', 'UNCOMPRESSED'] as const)(
    'gives the samples that JSONL gives, embedded images and nulls (%s)',
    async (codec) => {
      writeFileSync(join(dir, 'here.png'), png);
      const samples = await samplesOf([write(`${codec}.parquet`, codec)]);
      expect(samples).toHaveLength(5);
      expect(samples[1]).toMatchObject({
        images: [
          { kind: 'bytes', bytes: png },
          { kind: 'path', path: join(dir, 'here.png') },
        ],
        videoPath: join(dir, 'v/a.mp4'),
        fps: 25,
        totalFrames: 100,
        groundTruth: 'B',
        extraInfo: { index: 1 },
      });
      expect(samples[2]).not.toHaveProperty('fps');
      expect(samples[3]).not.toHaveProperty('videoPath');
      expect(samples[4]).not.toHaveProperty('envName');
      const asJson = rows.map((r) => JSON.stringify(r, (_, v) => (typeof v === 'bigint' ? Number(v) : v)));
      const plainRows = await samplesOf([file('same.jsonl', [0, 2, 3, 4].map((i) => asJson[i]).join('\n'))]);
      expect([0, 2, 3, 4].map((i) => ({ ...samples[i], uid: '' }))).toEqual(plainRows.map((s) => ({ ...s, uid: '' })));
    },
  );
});

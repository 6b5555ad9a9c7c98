/** The original environment, reward and evaluation program: equal in every row of the fixtures. */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import {
  chooseRegime,
  createSpotlightEnvironment,
  type FrameSource,
  fitSize,
  referenceInfer,
  referenceObservation,
  type Size,
} from '@frame-thinker/agent-env';
import { ccvV11 } from '@frame-thinker/ccv-reward';
import { createRng, type Observation, type Sample } from '@frame-thinker/core';
import { describe, expect, it } from 'vitest';

const folder = join(process.env.GOLDEN_DIR ?? 'tests/fixtures', 'agent');

function fixture<T>(name: string): T | undefined {
  const path = join(folder, name);
  if (existsSync(path)) return JSON.parse(readFileSync(path, 'utf8')) as T;
  console.log(`golden agent/${name}: missing (${path})`);
  return undefined;
}

/** Runs every row, prints the count, and fails with the names of the rows that differ. */
async function compare<T>(name: string, rows: readonly T[], check: (row: T) => unknown, nameOf: (row: T) => string) {
  const wrong: string[] = [];
  for (const row of rows) {
    try {
      await check(row);
    } catch (error) {
      wrong.push(
        `${nameOf(row)}: ${error instanceof Error ? error.message.split('\n').slice(0, 12).join(' ') : error}`,
      );
    }
  }
  console.log(`golden agent/${name}: ${rows.length - wrong.length} of ${rows.length}`);
  expect(rows.length).toBeGreaterThan(0);
  expect(wrong).toEqual([]);
}

interface RewardRow {
  name: string;
  solution_str: string;
  ground_truth: unknown;
  extra_info: unknown;
  output: { total: number; acc: number; format: number; other: number } | { error: string };
}

const rewards = fixture<RewardRow[]>('reward_v11.json');
describe.runIf(rewards)('ccv-v11', () => {
  it('equals the original on every row', async () => {
    const check = ({
      solution_str: solutionStr,
      ground_truth: groundTruth,
      extra_info: extraInfo,
      output,
    }: RewardRow) => {
      const { total, acc, format, other, rules } = ccvV11({ solutionStr, groundTruth, extraInfo });
      if ('error' in output) {
        expect([total, acc, format, other]).toEqual([0, 0, 0, 0]);
        expect(rules.map((rule) => rule.name)).toEqual([`raised:${output.error}`]);
      } else {
        expect({ total, acc, format, other }).toEqual(output);
        expect(rules.length === 0).toBe(acc === 1);
      }
    };
    await compare('reward_v11.json', rewards!, check, (row) => row.name);
  });
});

interface EnvironmentRow {
  name: string;
  meta: {
    video_path: string | null;
    fps: unknown;
    total_frames: unknown;
    actual_frames: number;
    image_width: number;
    image_height: number;
  };
  action_string: string;
  output: {
    regime?: { num_frames: number; max_width: number; max_height: number; target: [number, number] };
    observation?: string | { prompt: string; images: [number, number][] };
    reader?: { width: number; height: number; indices: number[] } | null;
    done?: boolean;
    error?: string;
  };
}

/** A video of `actual_frames` frames; what is asked of it is kept. The original never asks the file for facts. */
function fakeFrames(meta: EnvironmentRow['meta'], asked: { indices: number[]; size: Size }[]): FrameSource {
  return {
    probe: async () => {
      throw new Error('the row does not say');
    },
    get: async (video, indices, size) => {
      if (video.includes('missing')) throw new Error(`${video}: no such file`);
      asked.push({ indices: [...indices], size });
      const outside = indices.find((index) => index >= meta.actual_frames);
      if (outside !== undefined) throw new Error(`frame ${outside} is past the end`);
      return indices.map((index) => ({ video, index, ...size, sha256: '' }));
    },
  };
}

async function stepOnce({ name, meta, action_string }: EnvironmentRow, frames: FrameSource): Promise<Observation> {
  const sample: Sample = {
    uid: name,
    prompt: [],
    images: [{ kind: 'rgb', width: meta.image_width, height: meta.image_height, data: new Uint8Array() }],
    dataSource: 'golden',
    groundTruth: '',
    extraInfo: { video_path: meta.video_path, fps: meta.fps, total_frames: meta.total_frames },
  };
  const environment = createSpotlightEnvironment({ frames, grammar: 'reference' });
  const rng = createRng(0, 'sample');
  await environment.reset(sample, rng);
  return environment.step(action_string, rng);
}

async function checkEnvironment(row: EnvironmentRow): Promise<void> {
  const { meta, output } = row;
  const asked: { indices: number[]; size: Size }[] = [];
  const frames = fakeFrames(meta, asked);
  if (output.regime) {
    const known = typeof meta.fps === 'number' && meta.fps > 0 && typeof meta.total_frames === 'number';
    const durationSeconds = known ? (meta.total_frames as number) / (meta.fps as number) : undefined;
    const regime = chooseRegime({ durationSeconds });
    const { width, height } = fitSize({ width: meta.image_width, height: meta.image_height }, regime);
    expect({ ...regime, target: [width, height] }).toEqual({
      frames: output.regime.num_frames,
      maxWidth: output.regime.max_width,
      maxHeight: output.regime.max_height,
      target: output.regime.target,
    });
  } else {
    // The original raises in reset.
    await expect(stepOnce(row, frames)).rejects.toThrow();
    return;
  }
  const observation = await stepOnce(row, frames);
  if (output.error !== undefined) {
    // The original raises in the step: ours ends the episode and says why.
    expect(observation).toMatchObject({ done: true, reason: expect.any(String), error: expect.any(String) });
    return;
  }
  expect(observation.done).toBe(output.done);
  const text = observation.message === undefined ? '' : referenceObservation(observation.message);
  const expected = output.observation ?? '';
  if (typeof expected === 'string') {
    expect(text).toBe(expected);
    expect(observation.frames).toEqual([]);
  } else {
    expect(text).toBe(expected.prompt);
    expect(observation.frames.map(({ width, height }) => [width, height])).toEqual(expected.images);
  }
  const reader = asked.map(({ indices, size }) => ({ ...size, indices }));
  expect(reader).toEqual(output.reader ? [output.reader] : []);
}

const environment = fixture<EnvironmentRow[]>('env_think_with_video.json');
describe.runIf(environment)('the environment with grammar and template of the reference', () => {
  it('equals the original on every row', () =>
    compare('env_think_with_video.json', environment!, checkEnvironment, (row) => row.name));
});

interface InferFixture {
  initial_sampling: {
    total_frames: number;
    fps: number;
    num_frames: number;
    max_width: number;
    max_height: number;
    indices: number[];
  }[];
  choose_frames: {
    action: string;
    total_frames: number;
    num_frames: number;
    indices: number[] | null;
    user_content: { type: string; text?: string }[] | null;
  }[];
  get_frame_number: { action: string; fps: number; message: string | null }[];
  parse_model_response: { response: string; think_action: [string | null, string | null] }[];
  validate_reasoning_process: {
    from: string;
    solution_str: string;
    num_frames: number;
    output: [boolean, number, number];
  }[];
  resize: {
    width: number;
    height: number;
    max_width: number;
    max_height: number;
    env_target: [number, number];
    infer_size: [number, number] | { error: string };
  }[];
}

/** One check for each of the original's functions. */
const inferChecks: { [K in keyof InferFixture]: (row: InferFixture[K][number]) => void } = {
  initial_sampling: (row) => {
    const regime = chooseRegime({ durationSeconds: row.total_frames / row.fps });
    expect(regime).toEqual({ frames: row.num_frames, maxWidth: row.max_width, maxHeight: row.max_height });
    expect(referenceInfer.initialSampling(row.total_frames, row.num_frames)).toEqual(row.indices);
  },
  choose_frames: (row) => {
    const indices = referenceInfer.chooseFrames(row.action, { total: row.total_frames, n: row.num_frames });
    expect(indices ?? null).toEqual(row.indices);
    const shown = row.user_content?.map((part) => (part.type === 'image' ? '<image>' : part.text)).join('') ?? null;
    expect(indices ? referenceInfer.compactFrames(indices) : null).toBe(shown);
  },
  get_frame_number: (row) => expect(referenceInfer.getFrameNumber(row.action, row.fps) ?? null).toBe(row.message),
  parse_model_response: (row) => {
    const parsed = referenceInfer.parseModelResponse(row.response);
    expect([parsed?.think ?? null, parsed?.action ?? null]).toEqual(row.think_action);
  },
  validate_reasoning_process: (row) => {
    const { valid, toolCalls, choices } = referenceInfer.validateReasoningProcess(row.solution_str, row.num_frames);
    expect([valid, toolCalls, choices]).toEqual(row.output);
  },
  resize: (row) => {
    const regime = { maxWidth: row.max_width, maxHeight: row.max_height };
    const target = fitSize(row, regime);
    expect([target.width, target.height]).toEqual(row.env_target);
    const resize = (): [number, number] => {
      const { width, height } = referenceInfer.resizedSize(row, regime);
      return [width, height];
    };
    if ('error' in row.infer_size) expect(resize).toThrow(RangeError);
    else expect(resize()).toEqual(row.infer_size);
  },
};

const infer = fixture<InferFixture>('infer.json');
describe.runIf(infer)('the evaluation program', () => {
  it('equals the original on every row', async () => {
    const rows = Object.entries(infer!).flatMap(([name, list]) =>
      (list as unknown[]).map((row, i) => ({
        name: `${name} ${i}`,
        check: inferChecks[name as keyof InferFixture],
        row,
      })),
    );
    const run = ({ check, row }: (typeof rows)[number]) => {
      expect(check, 'a function that is not known').toBeTypeOf('function');
      (check as (row: unknown) => void)(row);
    };
    await compare('infer.json', rows, run, ({ name }) => name);
  });
});

/** @file What probes of a worker's keys look at: the shipped policy in a real worker, rolling out questions on a real video. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { LoadedConfig } from '@frame-thinker/config';
import type { Group, Trajectory } from '@frame-thinker/core';
import { startWorker } from '@frame-thinker/trainer';
import { renderScene } from '@frame-thinker/video';
import { MODEL, scratch } from './observers.ts';
import { item } from './probe.ts';

const FRAMES = 320;
const WITHIN_SECONDS = 24;
let rendered: Promise<string> | undefined;

/** A video that is wider and higher than the limits that probes set. */
function wideVideo(): Promise<string> {
  const path = join(scratch, 'wide.mp4');
  const box = { x: 90, y: 30, w: 50, h: 50, color: [200, 40, 40] as [number, number, number], start: 100, end: 200 };
  rendered ??= renderScene(
    { width: 224, height: 112, fps: 24, frames: FRAMES, background: [36, 36, 36], boxes: [box] },
    path,
  ).then(() => path);
  return rendered;
}

/** Settings under which the rollouts below are short. */
export const ROLLED = [
  item('actor_rollout_ref.model.path', MODEL),
  item('data.train_files', ['unused.jsonl']),
  item('data.system_prompt', 'none'),
  'data.val_files=[]',
  'data.max_prompt_length=1024',
  'data.max_response_length=512',
  'actor_rollout_ref.rollout.agent.single_response_max_tokens=48',
  'actor_rollout_ref.rollout.agent.max_turns=3',
  'engine.threads=1',
  // As the policy was trained, else it does not look.
  ...['short', 'long'].map((regime) => `env.${regime}={frames: 8, max_width: 112, max_height: 56}`),
];

const question = 'What shape is shown at 9:00?\nA: bar\nB: pole\nC: square\nD: cross';

function group(
  videoPath: string,
  position: number,
  more: { fps: number; envName?: string; answerOnly?: boolean },
): Group {
  const { fps, envName = 'think_with_video', answerOnly } = more;
  return {
    sample: {
      ...{ uid: `${position}`, prompt: [{ role: 'user', content: question }], videoPath, envName },
      ...{ dataSource: 'd', groundTruth: 'A', fps, totalFrames: FRAMES },
      extraInfo: { question },
    },
    ...{ position, n: 1, step: 1, ...(answerOnly ? { answerOnly } : {}) },
  };
}

const seen = ({ uid, ids, end, frames, turns, mask }: Trajectory) => ({
  ...{ uid, end, ids: [...ids], mask: [...mask] },
  frames: frames.map(({ index, width, height, position }) => [index, width, height, position]),
  turns: turns.map(({ role, text, error }) => [role, text, error]),
});

/**
 * Greedy episodes in the order in which they end: of a short and of a long video, whose question asks for a time past the
 * end, and of a turn that may only answer; then one of an environment named `mine`.
 */
export async function workerRun({ config }: LoadedConfig): Promise<unknown> {
  const video = await wideVideo();
  const worker = await startWorker(config, { workers: 1 });
  const rollOut = async (groups: Group[]): Promise<unknown[]> => {
    const found: unknown[] = [];
    try {
      const sampling = { temperature: 1, topP: 1, topK: -1, doSample: false };
      for await (const trajectories of worker.rollout(groups, sampling)) found.push(...trajectories.map(seen));
    } catch (error) {
      found.push({ refused: (error as Error).message.split(' known')[0] });
    }
    return found;
  };
  try {
    const many = [
      group(video, 0, { fps: WITHIN_SECONDS }),
      group(video, 1, { fps: 1 }),
      group(video, 2, { fps: WITHIN_SECONDS, answerOnly: true }),
    ];
    return [await rollOut(many), await rollOut([group(video, 3, { fps: WITHIN_SECONDS, envName: 'mine' })])];
  } finally {
    await worker.close();
  }
}

/** An environment that fails with the number of the process that it runs in. */
const WHERE = `export default () => ({
  async reset() { throw new Error(process.pid); }, async step() {}, async close() {},
});`;

/** Rows of each worker process that was started, two being shared out: one slot, so that a worker takes a row at a time. */
export async function sharedRun({ config, workers }: LoadedConfig): Promise<unknown> {
  const module = join(scratch, 'where.mjs');
  writeFileSync(module, WHERE);
  const registry = { where: module };
  const video = await wideVideo();
  const pool = await startWorker({ ...config, env: { ...config.env, registry } }, { workers });
  const rows = new Map<string, number>();
  try {
    const groups = [0, 1].map((position) => group(video, position, { fps: WITHIN_SECONDS, envName: 'where' }));
    const sampling = { temperature: 1, topP: 1, topK: -1, doSample: false };
    for await (const trajectories of pool.rollout(groups, sampling))
      for (const { turns } of trajectories) {
        const process = turns.at(-1)!.error!;
        rows.set(process, (rows.get(process) ?? 0) + 1);
      }
  } finally {
    await pool.close();
  }
  return [...rows.values()];
}

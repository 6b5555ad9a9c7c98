/** @file A worker without a model: its trajectories are drawn from what it was asked, and it keeps a record of every call. */
import { writeActorShards } from '@frame-thinker/checkpoint';
import {
  type Action,
  createRng,
  type Group,
  type SamplingOptions,
  type Trajectory,
  type Turn,
} from '@frame-thinker/core';
import { criticInit, workerInit } from '@frame-thinker/trainer';
import type { CriticWorker, PolicyWorker, WorkerBatch } from '@frame-thinker/worker-pool';
import { actorTensors, readState, type WorkerState } from '../../../packages/worker-pool/src/testing/worker-state.ts';

export interface ScriptedWorker {
  worker: PolicyWorker & CriticWorker;
  calls: unknown[];
}

const PROMPT = 3;
const DURATION_TURNS = 1;
const said = (think: string, block: string): string => `<think>${think}</think>\n<action>${block}</action>`;
const turn = (text: string, action: Action, more: Partial<Turn> = {}): Turn => ({
  ...{ role: 'assistant', start: 0, end: 0, text, action, ms: DURATION_TURNS },
  ...more,
});
const look = (start: number, end: number): Turn =>
  turn(
    said(`from ${start} to ${end}`, `choose frames between ${start} and ${end}`),
    { kind: 'frames', start, end },
    { frameIndices: [start + 1, end - 1] },
  );
const ask = turn(
  said('when?', 'get frame number at time 3:20'),
  { kind: 'time', time: '3:20', seconds: 200 },
  { frameNumber: 4800 },
);
const answer = (letter: string): Turn =>
  turn(said('sure', `output answer: ${letter}`), { kind: 'answer', answer: letter });

/** Right after a look, right after a time call and a look, wrong. */
const EPISODES: readonly Turn[][] = [
  [look(100, 300), answer('A')],
  [ask, look(4700, 4900), answer('A')],
  [answer('B')],
];

function trajectory({ sample, position, step }: Group, number: number): Trajectory {
  const rng = createRng(11, 'sample', step, position, number);
  const turns = EPISODES[(position + number) % EPISODES.length]!;
  const length = PROMPT + 5 + rng.below(6);
  const mask = Uint8Array.from({ length }, (_, i) => (i >= PROMPT && i !== PROMPT + 1 ? 1 : 0));
  return {
    ...{ uid: sample.uid, sample: number, step, promptLength: PROMPT, frames: [], turns, end: 'answer', mask },
    ids: Int32Array.from({ length }, () => 10 + rng.below(60)),
    logProbs: Float32Array.from(mask, (m) => (m ? -0.1 - 2 * rng.uniform() : 0)),
    toolCalls: turns.length - 1,
  };
}

const rounded = (values: ArrayLike<number>): number[] => Array.from(values, (x) => Number(x.toPrecision(6)));
const batchName = ({ trajectories }: WorkerBatch): string[] =>
  trajectories.map(({ ids }) => Array.from(ids.subarray(0, 5)).join(' '));

/** @param gradNorm what every update reports */
export function scriptedWorker(
  config: Parameters<typeof workerInit>[0],
  { workers, gradNorm = 1.5, name = 'policy' }: { workers: number; gradNorm?: number; name?: string },
): ScriptedWorker {
  const init = name === 'critic' ? criticInit(config, workers) : workerInit(config, workers);
  const calls: unknown[] = [{ name, workers, init }];
  const note = (method: string, params: object): void => {
    calls.push({ method, ...params });
  };
  let state: WorkerState = {
    step: 0,
    parameters: new Map([
      ['w', { shape: [2], weight: Float32Array.of(1, 2), expAvg: new Float32Array(2), expAvgSq: new Float32Array(2) }],
    ]),
  };
  /** Neither the rollout's nor equal between calls that differ, so that ratios are not 1. */
  const scores = ({ trajectories }: WorkerBatch) => ({
    logProbs: trajectories.map((row) => {
      const { logProbs } = row as Trajectory;
      const by = name === 'policy' ? 0.4 : 0.7;
      return logProbs.map((x, i) => (row.mask[i] ? Math.min(-0.01, x + by * Math.sin(3 * i)) : 0));
    }),
    entropy: trajectories.map(({ mask }) => Float32Array.from(mask, (m, i) => m * (1 + (i % 3)))),
  });
  /** They move with each update. */
  const values = ({ trajectories }: WorkerBatch) =>
    trajectories.map(({ ids, mask }) => Float32Array.from(mask, (m, i) => m * Math.sin(ids[i]! + 0.1 * state.step)));
  const worker = {
    capabilities: {
      ...{ engine: 'scripted', provider: 'none', parameters: 2, vocabSize: 100 },
      ...{ methods: [], visionIds: [1, 2], eosIds: [0] },
    },
    async *rollout(groups: readonly Group[], sampling: SamplingOptions) {
      note('rollout', { sampling, groups });
      for (const group of groups) yield Array.from({ length: group.n }, (_, number) => trajectory(group, number));
    },
    forward: async (batch, options) => {
      note('forward', { rows: batchName(batch), options });
      const found = scores(batch);
      return options.sumPiSquared ? { ...found, sumPiSquared: found.logProbs.map((row) => row.map(Math.exp)) } : found;
    },
    values: async (batch) => {
      note('values', { rows: batchName(batch) });
      return values(batch);
    },
    backwardValues: async (batch, dValues) => {
      note('backward', { rows: batchName(batch), d: dValues.map(rounded) });
      return values(batch);
    },
    backward: async (batch, { dLogProbs, dEntropy }, options) => {
      note('backward', { rows: batchName(batch), options, d: dLogProbs.map(rounded), e: dEntropy.map(rounded) });
      return scores(batch);
    },
    applyUpdate: async (options) => {
      note('update', { options });
      state = { ...state, step: state.step + 1 };
      return { gradNorm, applied: Number.isFinite(gradNorm) };
    },
    zeroGradients: async () => {},
    saveTo: async (dir, { worldSize }) => {
      await writeActorShards({ dir, worldSize, ...actorTensors(state) });
      return state.step;
    },
    loadFrom: async (dir, { step }) => {
      note('weights', { step });
      state = readState(dir, step);
    },
    close: async () => {},
  } as Partial<PolicyWorker & CriticWorker> as PolicyWorker & CriticWorker;
  return { worker, calls };
}

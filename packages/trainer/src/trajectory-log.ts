/** @file trajectories/{train,val}/step_N.jsonl beside step_N.safetensors, and verl's rollout dumps. */
import { existsSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { encodeSafetensors, removeStale, type TensorData } from '@frame-thinker/checkpoint';
import { type Trajectory, writeFileAtomic } from '@frame-thinker/core';
import type { TrainingRow } from './group-advantages.ts';
import type { ScoredGroup } from './scored-groups.ts';

const stepName = (step: number): string => `step_${String(step).padStart(6, '0')}`;

export interface TrajectoryLogOptions {
  dir: string;
  /** `non_finite`: what is kept of a step after which a run ended because its gradients were not finite. */
  kind: 'train' | 'val' | 'non_finite';
  step: number;
  groups: readonly ScoredGroup[];
  /** Advantages of the rows that were trained on. */
  rows?: readonly TrainingRow[];
  /** verl's export: one line of {input, output, gts, score, step, …} a trajectory. */
  verl?: { dir: string; decode: (ids: Int32Array) => string } | undefined;
}

/** Tensors of the rows that were trained on, one row after the other; `trained/lines` are their lines in the JSONL file. */
function trainedTensors(rows: readonly TrainingRow[], logged: readonly Trajectory[]): [string, TensorData][] {
  const flat = (name: string, values: (row: TrainingRow) => Float32Array): [string, TensorData] => {
    const data = joined(rows.map(values));
    return [name, { dtype: 'F32', shape: [data.length], data }];
  };
  const lines = Int32Array.from(rows, ({ trajectory }) => logged.indexOf(trajectory));
  return [
    ['trained/lines', { dtype: 'I32', shape: [lines.length], data: lines }],
    flat('trained/loss_mask', ({ mask }) => Float32Array.from(mask)),
    flat('trained/advantages', (row) => row.advantages),
    flat('trained/returns', (row) => row.returns),
    flat('trained/old_log_probs', (row) => row.oldLogProbs),
    ...(rows.every((row) => row.refLogProbs) ? [flat('trained/ref_log_probs', (row) => row.refLogProbs!)] : []),
    ...(rows.every((row) => row.isWeights) ? [flat('trained/is_weights', (row) => row.isWeights!)] : []),
  ];
}

function joined(parts: readonly Float32Array[]): Float32Array {
  const out = new Float32Array(parts.reduce((n, part) => n + part.length, 0));
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}

/**
 * Writes what a step rolled out: text for people, tensors (ids, mask, log-probs, advantages) for programs.
 * Returns the path of both files without their endings.
 */
export function writeTrajectories({ dir, kind, step, groups, rows = [], verl }: TrajectoryLogOptions): string {
  const folder = join(dir, 'trajectories', kind);
  const advantageOf = new Map(rows.map((row) => [row.trajectory, row.advantages]));
  const members = groups.flatMap((group) => group.members.map((member) => ({ group, member })));
  const lines = members.map(({ group, member: { trajectory, reward, error, text } }) => {
    const advantages = advantageOf.get(trajectory);
    return JSON.stringify({
      version: 1,
      step,
      uid: trajectory.uid,
      sample: trajectory.sample,
      data_source: group.group.sample.dataSource,
      ground_truth: group.group.sample.groundTruth,
      extra_info: group.group.sample.extraInfo,
      end: trajectory.end,
      turns: trajectory.turns,
      frames: trajectory.frames,
      tool_calls: trajectory.toolCalls,
      reward: reward ?? null,
      ...(error === undefined ? {} : { error }),
      advantage: advantages ? (advantages.find((a) => a !== 0) ?? 0) : null,
      text,
    });
  });
  writeFileAtomic(join(folder, `${stepName(step)}.jsonl`), `${lines.join('\n')}\n`);
  const trajectories = members.map(({ member }) => member.trajectory);
  const ids = Int32Array.from(trajectories.flatMap((t) => [...t.ids]));
  const mask = Uint8Array.from(trajectories.flatMap((t) => [...t.mask]));
  const lengths = Int32Array.from(trajectories, (t) => t.ids.length);
  writeFileAtomic(
    join(folder, `${stepName(step)}.safetensors`),
    encodeSafetensors([
      ['lengths', { dtype: 'I32', shape: [lengths.length], data: lengths }],
      ['ids', { dtype: 'I32', shape: [ids.length], data: ids }],
      ['mask', { dtype: 'U8', shape: [mask.length], data: mask }],
      ['log_probs', { dtype: 'F32', shape: [ids.length], data: joined(trajectories.map((t) => t.logProbs)) }],
      [
        'advantages',
        {
          dtype: 'F32',
          shape: [ids.length],
          data: joined(trajectories.map((t) => advantageOf.get(t) ?? new Float32Array(t.ids.length))),
        },
      ],
      ...(kind === 'non_finite' ? trainedTensors(rows, trajectories) : []),
    ]),
  );
  if (!verl) return join(folder, stepName(step));
  const exported = members.map(({ group, member: { trajectory, reward, text } }) =>
    JSON.stringify({
      input: verl.decode(trajectory.ids.subarray(0, trajectory.promptLength)),
      output: text,
      gts: group.group.sample.groundTruth,
      score: reward?.total ?? null,
      step,
      acc: reward?.acc ?? null,
      format: reward?.format ?? null,
      ...(reward?.extras ?? {}),
    }),
  );
  writeFileAtomic(join(verl.dir, `${step}.jsonl`), `${exported.join('\n')}\n`);
  return join(folder, stepName(step));
}

/** Removes what a run wrote after `step`; a resumed run writes those steps again. */
export function rewindTrajectories(dir: string, step: number): void {
  for (const kind of ['train', 'val']) {
    const folder = join(dir, 'trajectories', kind);
    if (!existsSync(folder)) continue;
    removeStale(folder, (name) => /^step_\d+\./.test(name));
    for (const file of readdirSync(folder)) {
      const n = Number(/^step_(\d+)\./.exec(file)?.[1]);
      if (n > step) rmSync(join(folder, file));
    }
  }
}

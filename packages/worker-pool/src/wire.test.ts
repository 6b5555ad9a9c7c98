import type { Group, Trajectory } from '@frame-thinker/core';
import { describe, expect, it } from 'vitest';
import { decodeRequest, encodeFrame, FrameSplitter, type JsonObject } from './frames.ts';
import type { WorkerBatch } from './types.ts';
import {
  decodeBatch,
  decodeCotangents,
  decodeGroups,
  decodeTrajectories,
  encodeBatch,
  encodeCotangents,
  encodeGroups,
  encodeTrajectories,
} from './wire.ts';

/** Through the bytes of a frame and back. */
function sent({ params, tensors }: ReturnType<typeof encodeBatch>) {
  const bytes = Buffer.concat(encodeFrame({ v: 1, id: 1, method: 'x', params }, tensors));
  const { call, tensors: received } = decodeRequest(new FrameSplitter().push(bytes)[0]!);
  return { params: call.params as JsonObject, tensors: received };
}
const frame = { video: 'a.mp4', index: 3, width: 2, height: 1, sha256: 'ab', position: 4 };

describe('the wire', () => {
  it('carries batches with frames, jumps and inline images', () => {
    const batch: WorkerBatch = {
      id: 'b1',
      trajectories: [
        { ids: Int32Array.of(1, 2, 3), mask: Uint8Array.of(0, 1, 1), promptLength: 1, frames: [frame], images: [] },
        {
          ids: Int32Array.of(4),
          mask: Uint8Array.of(0),
          promptLength: 1,
          frames: [],
          jumps: [{ at: 1, by: 9 }],
          images: [{ width: 2, height: 1, data: Uint8Array.of(1, 2, 3, 4, 5, 6), position: 0 }],
        },
      ],
    };
    const { params, tensors } = sent(encodeBatch(batch));
    expect(params).toMatchObject({ trajectories: [{ prompt_length: 1 }, {}] });
    expect(decodeBatch(params, tensors)).toEqual(batch);
    const cotangents = {
      dLogProbs: [Float32Array.of(1, 2, 3), Float32Array.of(4)],
      dEntropy: [new Float32Array(3), new Float32Array(1)],
    };
    const received = sent({ params: {}, tensors: encodeCotangents(cotangents) });
    expect(decodeCotangents(received.tensors, [3, 1])).toEqual(cotangents);
    expect(() => decodeCotangents(received.tensors, [3, 2])).toThrow(/4 values for rows of 3, 2/);
  });

  it('carries trajectories, one without any tokens too', () => {
    const trajectories: Trajectory[] = [
      {
        uid: 'q',
        sample: 1,
        step: 2,
        ids: Int32Array.of(1, 2),
        mask: Uint8Array.of(0, 1),
        logProbs: Float32Array.of(0, -0.5),
        promptLength: 1,
        frames: [frame],
        turns: [{ role: 'assistant', start: 1, end: 2, text: 'x', frameIndices: [1, 2], ms: 3 }],
        end: 'answer',
        toolCalls: 0,
      },
      {
        uid: 'q',
        sample: 2,
        step: 2,
        ids: new Int32Array(0),
        mask: new Uint8Array(0),
        logProbs: new Float32Array(0),
        promptLength: 0,
        frames: [],
        turns: [],
        end: 'decode_error',
        toolCalls: 0,
      },
    ];
    const { params, tensors } = sent(encodeTrajectories(trajectories));
    expect(decodeTrajectories(params, tensors)).toEqual(trajectories);
  });

  it("carries groups, the row's own keys as they are", () => {
    const group: Group = {
      sample: {
        uid: 'q',
        prompt: [{ role: 'user', content: '<image>?' }],
        images: [
          { kind: 'bytes', bytes: Uint8Array.of(9) },
          { kind: 'rgb', width: 1, height: 1, data: Uint8Array.of(1, 2, 3) },
          { kind: 'path', path: '/x.png' },
        ],
        dataSource: 'd',
        groundTruth: 'A',
        extraInfo: { videoPath: 1, video_path: { aB: 2 } },
      },
      position: 5,
      n: 2,
      step: 3,
    };
    const { params, tensors } = sent(encodeGroups([group]));
    expect(params).toMatchObject({ groups: [{ sample: { ground_truth: 'A' } }] });
    expect(decodeGroups(params, tensors)).toEqual([group]);
  });
});

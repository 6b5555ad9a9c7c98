import { tensorOf } from '@frame-thinker/checkpoint';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ProtocolError } from './errors.ts';
import { decodeReply, decodeRequest, encodeFrame, FrameSplitter, type Request } from './frames.ts';

const request: Request = { v: 1, id: 3, method: 'forward', params: { temperature: 1, ban: [1, 2], text: 'é\n"' } };
const stream = (...chunks: Uint8Array[][]): Buffer => Buffer.concat(chunks.flat());
const lengthOf = (n: bigint): Buffer => {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(n);
  return bytes;
};

describe('frames', () => {
  it('come back from a stream cut anywhere, tensors and all', () => {
    const tensors = [
      ['bytes', tensorOf(Uint8Array.of(1, 2, 3))],
      ['ids', tensorOf(Int32Array.of(-1, 5), [2, 1])],
      ['sums', tensorOf(Float64Array.of(0.1))],
      ['empty', tensorOf(new Float32Array(0))],
    ] as const;
    const bytes = stream(encodeFrame(request, tensors), encodeFrame({ ...request, id: 4 }));
    fc.assert(
      fc.property(fc.array(fc.nat(bytes.length), { maxLength: 12 }), (cuts) => {
        const splitter = new FrameSplitter();
        const marks = [0, ...cuts.sort((a, b) => a - b), bytes.length];
        const bodies = marks.slice(1).flatMap((end, i) => splitter.push(bytes.subarray(marks[i], end)));
        splitter.end();
        expect(bodies).toHaveLength(2);
        const [first, second] = bodies.map((body) => decodeRequest(body));
        expect(first!.call).toEqual(request);
        expect(second!.call.id).toBe(4);
        for (const [name, tensor] of tensors) expect(first!.tensors.get(name)).toEqual(tensor);
      }),
      { numRuns: 50 },
    );
  });

  it('of a damaged length are refused before memory is taken', () => {
    expect(() => new FrameSplitter({ maxBytes: 100 }).push(lengthOf(101n))).toThrow(
      /101 bytes is named, the limit is 100/,
    );
    expect(() => new FrameSplitter().push(Buffer.alloc(8, 255))).toThrow(ProtocolError);
  });

  it('that end too soon are named', () => {
    const bytes = stream(encodeFrame(request));
    const splitter = new FrameSplitter();
    expect(splitter.push(bytes.subarray(0, 20))).toEqual([]);
    expect(() => splitter.end()).toThrow(/ended inside a frame: 12 of/);
    const short = new FrameSplitter();
    short.push(bytes.subarray(0, 5));
    expect(() => short.end()).toThrow(/inside the length/);
  });

  const bodyOf = (call: string): Uint8Array => {
    const json = JSON.stringify({ __metadata__: { call } });
    return Buffer.concat([lengthOf(BigInt(json.length)), Buffer.from(json)]);
  };
  it.each([
    ['no call object', bodyOf('null')],
    ['JSON', bodyOf('{"v":1,')],
    ['version 2', bodyOf('{"v":2,"id":1,"method":"x"}')],
    ['no call id', bodyOf('{"v":1,"method":"x"}')],
    ['names no method', bodyOf('{"v":1,"id":1}')],
    ['params is not an object', bodyOf('{"v":1,"id":1,"method":"x","params":[]}')],
    ['too few', new Uint8Array(3)],
    ['header', Buffer.concat([lengthOf(1000n), Buffer.alloc(20)])],
  ])('with a bad body are refused: %s', (why, body) => {
    expect(() => decodeRequest(body)).toThrow(ProtocolError);
    expect(() => decodeRequest(body)).toThrow(why);
  });

  it('of replies hold exactly one of result, partial and error', () => {
    const read = (call: object) => decodeReply(bodyOf(JSON.stringify(call)));
    expect(read({ v: 1, id: 1, ms: 2, result: { a: 1 } }).call).toEqual({ v: 1, id: 1, ms: 2, result: { a: 1 } });
    expect(() => read({ v: 1, id: 1 })).toThrow(/exactly one/);
    expect(() => read({ v: 1, id: 1, result: {}, partial: {} })).toThrow(/exactly one/);
  });
});

import { pickleCall, pickleDict, writePickle } from '@frame-thinker/pickle';
import { describe, expect, it } from 'vitest';
import { RayValueError } from './errors.ts';
import { ObjectRef } from './handles.ts';
import { decodeValue, encodeArguments, encodeValue, PythonTuple, referenceStub } from './values.ts';

const never = (): never => {
  throw new Error('no reference is expected');
};
const send = (value: unknown): Uint8Array => Buffer.concat(encodeValue(value, never));
const thereAndBack = (value: unknown): unknown => decodeValue(send(value), never);

function nested(depth: number): unknown[] {
  let value: unknown[] = [];
  for (let i = 1; i < depth; i++) value = [value];
  return value;
}

describe('values', () => {
  it('that are not plain data are refused by name, in both directions', () => {
    const evil = writePickle(pickleCall('posix system', 'true'));
    expect(() => decodeValue(evil, never)).toThrow(/posix\.system/);
    expect(() => send({ a: new Float32Array(2) })).toThrow(/a Float32Array can't be sent/);
    expect(() => send(Symbol('x'))).toThrow(/a symbol can't be sent/);
  });

  it('keep keys that name a prototype plain keys', () => {
    const back = decodeValue(writePickle(pickleDict([['__proto__', pickleDict([['polluted', 1]])]])), never);
    expect(Object.keys(back as object)).toEqual(['__proto__']);
    expect(({} as Record<string, unknown>).polluted).toBeUndefined();
  });

  it('may be arrays, tuples, arguments and members by the hundred thousand', () => {
    const long = Array.from({ length: 200_000 }, (_, i) => i);
    const same = (back: unknown): void => expect(String(back)).toBe(String(long));
    same(thereAndBack(long));
    // As arguments of a JavaScript call they would be too many.
    same(thereAndBack(Object.assign(new PythonTuple(), { items: long })));
    same([...(thereAndBack(new Set(long)) as Set<number>)]);
    const [args, keywords] = decodeValue(Buffer.concat(encodeArguments(long, never)), never) as unknown[];
    same(args);
    expect(keywords).toEqual({});
  });

  it('have null in the holes of an array', () => {
    const holes = [1, undefined, 3];
    delete holes[1];
    expect(thereAndBack(holes)).toEqual([1, null, 3]);
  });

  it('nest 200 deep, and not deeper or within themselves', () => {
    expect(thereAndBack(nested(200))).toEqual(nested(200));
    const self: Record<string, unknown> = {};
    self.self = [self];
    for (const wrong of [nested(201), nested(100_000), self])
      expect(() => send(wrong)).toThrow(
        new RayValueError("a value nested deeper than 200, or within itself, can't be sent"),
      );
  });

  it('are no references by their looks', () => {
    const looks = { kind: 'Object', id: Uint8Array.of(1, 2) };
    expect(thereAndBack(looks)).toEqual(looks);
    const ref = new ObjectRef(looks.id);
    const written: unknown[] = [];
    encodeValue([looks, ref], (reference) => {
      written.push(reference);
      return referenceStub(reference, 'client');
    });
    expect(written).toEqual([ref]);
  });

  it('that Python can not read are refused before they are sent', () => {
    const largest = 2n ** 511n - 1n;
    expect(thereAndBack([largest, -largest - 1n])).toEqual([largest, -largest - 1n]);
    for (const wrong of [largest + 1n, 2n ** 3000n])
      expect(() => send(wrong)).toThrow(/an integer of more than 512 bits can't be sent/);
    expect(thereAndBack(new Set([new PythonTuple(1, 'a')]))).toEqual(new Set([[1, 'a']]));
    for (const wrong of [[1], {}, new Map(), new Set(), new PythonTuple([])])
      expect(() => send(new Set([wrong]))).toThrow(/can't hash/);
    expect(() => send(new Map([[new Date(), 1]]))).toThrow(/a Map with a key that is a Date can't be sent/);
    expect(() => send(new Map([[undefined, 1]]))).toThrow(/a key that is undefined/);
    for (const wrong of ['a\ud800', { '\udc00': 1 }]) expect(() => send(wrong)).toThrow(/half of a surrogate pair/);
    expect(thereAndBack('𝄞')).toBe('𝄞');
  });
});

import { mkdtempSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { InputError } from '@frame-thinker/core';
import fc from 'fast-check';
import { afterAll, describe, expect, it } from 'vitest';
import { bytesOf, DTYPES, elementCount, sizeOfDtype, type TensorData, tensorOf, viewAs } from './dtype.ts';
import { decodeSafetensors, encodeSafetensors } from './safetensors.ts';
import { createSafetensors, openSafetensors } from './safetensors-file.ts';

const root = mkdtempSync(join(tmpdir(), 'safetensors-'));
afterAll(() => rmSync(root, { recursive: true }));
const folder = () => mkdtempSync(join(root, 'folder-'));
const blob = (json: unknown, data = 0, length?: number): Uint8Array => {
  const text = Buffer.from(typeof json === 'string' ? json : JSON.stringify(json));
  const head = Buffer.alloc(8);
  head.writeBigUInt64LE(BigInt(length ?? text.length));
  return Buffer.concat([head, text, Buffer.alloc(data)]);
};

const tensor: fc.Arbitrary<TensorData> = fc
  .tuple(fc.constantFrom(...DTYPES), fc.array(fc.nat(4), { maxLength: 3 }))
  .chain(([dtype, shape]) => {
    const length = elementCount(shape) * sizeOfDtype(dtype);
    return fc
      .uint8Array({ minLength: length, maxLength: length })
      .map((bytes) => ({ dtype, shape, data: viewAs(dtype, bytes) }));
  });
const name = fc
  .oneof(
    fc.string({ unit: 'grapheme', minLength: 1 }),
    fc.constantFrom('0', '7', 'a.b', 'constructor', '__proto__', 'toString'),
  )
  .filter((n) => n !== '__metadata__');
const tensors = fc.uniqueArray(fc.tuple(name, tensor), { maxLength: 6, selector: ([n]) => n });
const metadata = fc.dictionary(fc.string(), fc.string(), { maxKeys: 3 });

describe('safetensors', () => {
  it('come back from memory, aligned or not', () => {
    fc.assert(
      fc.property(tensors, metadata, fc.nat(8), (list, meta, shift) => {
        const whole = Buffer.concat(encodeSafetensors(list, meta));
        const moved = new Uint8Array(whole.length + shift);
        moved.set(whole, shift);
        const decoded = decodeSafetensors(moved.subarray(shift));
        expect(decoded.metadata).toEqual(meta);
        expect(new Set(decoded.tensors.keys())).toEqual(new Set(list.map(([n]) => n)));
        for (const [n, { dtype, shape, data }] of list) {
          const found = decoded.tensors.get(n)!;
          expect([found.dtype, found.shape]).toEqual([dtype, shape]);
          expect(Buffer.compare(bytesOf(found.data), bytesOf(data))).toBe(0);
        }
      }),
    );
  });

  it('decode aligned blobs without a copy', () => {
    const whole = new Uint8Array(
      Buffer.concat(
        encodeSafetensors([
          ['bytes', tensorOf(Uint8Array.of(1, 2, 3))],
          ['ids', tensorOf(BigInt64Array.of(5n))],
          ['values', tensorOf(Float32Array.of(0.5))],
        ]),
      ),
    );
    for (const { data } of decodeSafetensors(whole).tensors.values()) expect(data.buffer).toBe(whole.buffer);
  });

  it('come back from files, one tensor at a time, written in any order', () => {
    fc.assert(
      fc.property(tensors, metadata, (list, meta) => {
        const dir = folder();
        const path = join(dir, 'x.safetensors');
        const specs = list.map(([n, { dtype, shape }]) => ({ name: n, dtype, shape }));
        const writer = createSafetensors({ path, tensors: specs, metadata: meta });
        for (const [n, { data }] of [...list].reverse()) {
          const bytes = bytesOf(data);
          writer.write(n, bytes.subarray(0, bytes.length >> 1));
          writer.write(n, bytes.subarray(bytes.length >> 1));
        }
        expect(readdirSync(dir)).not.toContain('x.safetensors');
        writer.finish();
        expect(readdirSync(dir)).toEqual(['x.safetensors']);
        expect(Buffer.compare(readFileSync(path), Buffer.concat(encodeSafetensors(list, meta)))).toBe(0);
        const file = openSafetensors(path);
        for (const [n, t] of list) {
          const found = file.read(n);
          expect([found.dtype, found.shape]).toEqual([t.dtype, t.shape]);
          expect(Buffer.compare(bytesOf(found.data), bytesOf(t.data))).toBe(0);
        }
        file.close();
      }),
      { numRuns: 40 },
    );
  });

  it('cut anywhere are refused', () => {
    const whole = Buffer.concat(encodeSafetensors([['w', tensorOf(Float32Array.of(1, 2, 3))]]));
    const path = join(folder(), 'w.safetensors');
    writeFileSync(path, whole);
    for (let size = whole.length - 1; size >= 0; size--) {
      expect(() => decodeSafetensors(whole.subarray(0, size))).toThrow(InputError);
      truncateSync(path, size);
      expect(() => openSafetensors(path)).toThrow(InputError);
    }
    expect(() => decodeSafetensors(whole.subarray(0, whole.length - 1), 'w.st')).toThrow(/^w\.st: tensor w: truncated/);
  });

  it('with a changed header byte are refused or still describe data of the same size', () => {
    const whole = Buffer.concat(
      encodeSafetensors([
        ['a', tensorOf(Float32Array.of(1, 2, 3, 4), [2, 2])],
        ['b', tensorOf(Int32Array.of(7))],
      ]),
    );
    fc.assert(
      fc.property(fc.nat(whole.length - 21), fc.integer({ min: 1, max: 255 }), (at, change) => {
        const broken = Buffer.from(whole);
        broken[at]! ^= change;
        try {
          let bytes = 0;
          for (const { data } of decodeSafetensors(broken).tensors.values()) bytes += data.byteLength;
          expect(bytes).toBe(20);
        } catch (error) {
          expect(error).toBeInstanceOf(InputError);
        }
      }),
      { numRuns: 500 },
    );
  });

  it.each([
    ['no object', blob('[]'), 'not an object'],
    ['no JSON', blob('{"a":'), 'not JSON'],
    ['a huge header', blob('{}', 0, 2 ** 40), 'a header of 1099511627776 bytes'],
    [
      'an unknown dtype',
      blob({ a: { dtype: 'F8_E4M3', shape: [1], data_offsets: [0, 1] } }, 1),
      'tensor a: dtype "F8_E4M3"',
    ],
    ['a negative shape', blob({ a: { dtype: 'U8', shape: [-1], data_offsets: [0, 1] } }, 1), 'tensor a: damaged shape'],
    ['too few bytes', blob({ a: { dtype: 'F32', shape: [2], data_offsets: [0, 4] } }, 4), 'tensor a: F32 [2] needs 8'],
    [
      'an overlap',
      blob(
        { a: { dtype: 'U8', shape: [2], data_offsets: [0, 2] }, b: { dtype: 'U8', shape: [2], data_offsets: [1, 3] } },
        3,
      ),
      'tensor b: overlaps',
    ],
    ['a gap', blob({ a: { dtype: 'U8', shape: [1], data_offsets: [1, 2] } }, 2), 'tensor a: a gap'],
    ['trailing bytes', blob({ a: { dtype: 'U8', shape: [1], data_offsets: [0, 1] } }, 2), '1 bytes follow'],
    ['metadata of numbers', blob({ __metadata__: { a: 1 } }), '__metadata__'],
  ])('with %s are refused', (_what, bytes, message) => {
    expect(() => decodeSafetensors(bytes, 'x.st')).toThrow(InputError);
    expect(() => decodeSafetensors(bytes, 'x.st')).toThrow(message);
  });

  it('refuse data that do not fit, names used twice, and unfinished tensors', () => {
    const one = tensorOf(Float32Array.of(1));
    expect(() => encodeSafetensors([['a', { ...one, shape: [2] }]])).toThrow(/a has 4 bytes/);
    expect(() =>
      encodeSafetensors([
        ['a', one],
        ['a', one],
      ]),
    ).toThrow(/is taken/);
    const dir = folder();
    const writer = createSafetensors({ path: join(dir, 'a'), tensors: [{ name: 'a', dtype: 'F32', shape: [1] }] });
    expect(() => writer.finish()).toThrow(/tensor a lacks 4 bytes/);
    expect(readdirSync(dir)).toEqual([]);
  });

  it('name a folder that cannot be written or read', () => {
    const file = join(folder(), 'file');
    writeFileSync(file, '');
    expect(() => createSafetensors({ path: join(file, 'x'), tensors: [] })).toThrow(InputError);
    expect(() => openSafetensors('/nowhere/x.safetensors')).toThrow('/nowhere/x.safetensors: cannot be read');
  });
});

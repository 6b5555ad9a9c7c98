import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { imageSize } from './image-size.ts';

const png = Uint8Array.from([
  0x89, 0x50, 0x4e, 0x47, 13, 10, 26, 10, 0, 0, 0, 13, 73, 72, 68, 82, 0, 0, 1, 192, 0, 0, 0, 252,
]);
// SOI, a comment of 2 bytes, a DHT segment, SOF2.
const jpeg = Uint8Array.from([
  0xff, 0xd8, 0xff, 0xfe, 0, 4, 1, 2, 0xff, 0xc4, 0, 3, 9, 0xff, 0xff, 0xc2, 0, 17, 8, 0, 252, 1, 192, 3, 0, 0, 0,
]);

describe('imageSize', () => {
  it('reads PNG and JPEG headers', () => {
    for (const bytes of [png, jpeg]) expect(imageSize({ kind: 'bytes', bytes })).toEqual({ width: 448, height: 252 });
  });
  it('reads files, and says what is wrong with one', () => {
    const folder = mkdtempSync(join(tmpdir(), 'image-'));
    const path = join(folder, 'a.png');
    writeFileSync(path, png);
    expect(imageSize({ kind: 'path', path })).toEqual({ width: 448, height: 252 });
    rmSync(folder, { recursive: true });
    expect(() => imageSize({ kind: 'path', path })).toThrow(/prompt image: .*no such file/);
    expect(() => imageSize({ kind: 'bytes', bytes: Uint8Array.from([71, 73, 70]) })).toThrow(/neither PNG nor JPEG/);
    expect(() => imageSize({ kind: 'bytes', bytes: jpeg.subarray(0, 14) })).toThrow(/neither PNG nor JPEG/);
  });
});

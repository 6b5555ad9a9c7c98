/** @file Size of an image from its first bytes. */
import { closeSync, openSync, readSync } from 'node:fs';
import { type ImageSource, InputError, messageOf } from '@frame-thinker/core';
import type { Size } from './regimes.ts';

const PNG = [0x89, 0x50, 0x4e, 0x47];
/** JPEG headers may carry previews and colour profiles before the frame header. */
const HEADER_BYTES = 1 << 20;

function encodedSize(bytes: Uint8Array): Size | undefined {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (bytes.length >= 24 && PNG.every((byte, i) => bytes[i] === byte))
    return { width: view.getUint32(16), height: view.getUint32(20) };
  if (bytes[0] !== 0xff || bytes[1] !== 0xd8) return undefined;
  for (let at = 2; at + 9 <= bytes.length; ) {
    if (bytes[at] !== 0xff) return undefined;
    const marker = bytes[at + 1]!;
    if (marker === 0xff) {
      at++;
      continue;
    }
    // SOF0-SOF15, but for DHT (c4), JPG (c8) and DAC (cc): precision, height, width.
    if (marker >= 0xc0 && marker <= 0xcf && marker !== 0xc4 && marker !== 0xc8 && marker !== 0xcc)
      return { height: view.getUint16(at + 5), width: view.getUint16(at + 7) };
    at += 2 + view.getUint16(at + 2);
  }
  return undefined;
}

function firstBytes(path: string): Uint8Array {
  const handle = openSync(path, 'r');
  try {
    const bytes = new Uint8Array(HEADER_BYTES);
    return bytes.subarray(0, readSync(handle, bytes));
  } finally {
    closeSync(handle);
  }
}

/** Width and height in pixels. @throws InputError when the file is missing or neither PNG nor JPEG. */
export function imageSize(image: ImageSource): Size {
  if (image.kind === 'rgb') return { width: image.width, height: image.height };
  if (image.kind === 'frame') return { width: image.frame.width, height: image.frame.height };
  let bytes: Uint8Array;
  try {
    bytes = image.kind === 'path' ? firstBytes(image.path) : image.bytes;
  } catch (error) {
    throw new InputError(`prompt image: ${messageOf(error)}`);
  }
  const size = encodedSize(bytes);
  if (!size)
    throw new InputError(
      `prompt image${image.kind === 'path' ? ` ${image.path}` : ''}: neither PNG nor JPEG, so its size is not known; convert it`,
    );
  return size;
}

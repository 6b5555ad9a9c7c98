import { expect, it } from 'vitest';
import { embeddedImage } from './embedded-images.ts';

it('keeps the bytes of images out of memory and gives them back, however often and in any order', () => {
  const bytesOf = (i: number) => Uint8Array.from({ length: 1 << 20 }, (_, k) => (k * 31 + i) % 251);
  const images = Array.from({ length: 64 }, (_, i) => embeddedImage(bytesOf(i % 60)));
  for (const i of [63, 0, 17, 17, 59]) {
    const image = images[i]!;
    expect(image.kind === 'bytes' && Buffer.compare(image.bytes, bytesOf(i % 60))).toBe(0);
  }
  // What is kept of an image is where it stands: no property of it holds the megabyte.
  expect(Object.getOwnPropertyDescriptor(images[0], 'bytes')?.value).toBeUndefined();
});

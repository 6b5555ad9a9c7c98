/** @file Images that stand in data files as bytes: kept on disk, read when they are looked at, so that a data set does not fill the memory. */
import { createHash } from 'node:crypto';
import { closeSync, mkdtempSync, openSync, readSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { explainWriteError, type ImageSource, RunError } from '@frame-thinker/core';

/** All images of a process in one file that has no name any more: it is gone when the process is, however that ends. */
class ImageFile {
  readonly #handle: number;
  readonly #folder: string;
  #end = 0;
  /** Where each image stands, by its hash: rows often share images. */
  readonly #places = new Map<string, { at: number; length: number }>();

  constructor() {
    this.#folder = mkdtempSync(join(tmpdir(), 'frame-thinker-rows-'));
    const path = join(this.#folder, 'images');
    this.#handle = openSync(path, 'w+');
    try {
      rmSync(this.#folder, { recursive: true });
    } catch {
      // Where open files cannot be removed, at the end of the process.
      process.once('exit', () => {
        closeSync(this.#handle);
        rmSync(this.#folder, { recursive: true, force: true });
      });
    }
  }

  /** @throws InputError when the disk is full */
  add(bytes: Uint8Array): { at: number; length: number } {
    const hash = createHash('sha256').update(bytes).digest('hex');
    const known = this.#places.get(hash);
    if (known) return known;
    const place = { at: this.#end, length: bytes.length };
    try {
      for (let done = 0; done < bytes.length; )
        done += writeSync(this.#handle, bytes, done, bytes.length - done, place.at + done);
    } catch (error) {
      throw explainWriteError(error, `${this.#folder}/images`);
    }
    this.#end += bytes.length;
    this.#places.set(hash, place);
    return place;
  }

  read({ at, length }: { at: number; length: number }): Uint8Array {
    const bytes = new Uint8Array(length);
    const got = readSync(this.#handle, bytes, 0, length, at);
    if (got !== length) throw new RunError(`an image of a data row cannot be read again: ${got} of ${length} bytes`);
    return bytes;
  }
}

let file: ImageFile | undefined;

/** An image whose bytes are on disk until `bytes` is read; each read brings them anew. */
export function embeddedImage(encoded: Uint8Array): ImageSource {
  file ??= new ImageFile();
  const images = file;
  const place = images.add(encoded);
  return {
    kind: 'bytes',
    get bytes() {
      return images.read(place);
    },
  };
}

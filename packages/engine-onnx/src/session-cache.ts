/**
 * @file Models as ONNX Runtime has optimised them, on disk: a session is made from one in a third of the time. Whatever the
 * optimisation depends on is in a file's name, and its checksum in its head. The cache only saves time: a damaged file is made
 * again, and a folder that cannot be written is done without.
 */
import { createHash } from 'node:crypto';
import { mkdirSync, readdirSync, readFileSync, renameSync, rmSync, statSync, utimesSync, writeFileSync } from 'node:fs';
import { cpus } from 'node:os';
import { join } from 'node:path';
import { temporaryName } from '@frame-thinker/core';
import type { InferenceSession } from 'onnxruntime-node';
import type { Ort } from './runtime.ts';

const VERSION = 1;
/** A smaller model is optimised as fast as it is read. */
const LEAST_BYTES = 2 ** 15;
/** A larger one holds weights, which change. */
const MOST_BYTES = 2 ** 25;
/** Of the whole folder; what was used least recently goes. */
const FOLDER_BYTES = 2 ** 28;
const CHECKSUM_BYTES = 32;

export interface SessionRequest {
  bytes: Uint8Array;
  options: InferenceSession.SessionOptions;
}

/** Kernels and layouts are chosen by what the processor can do. */
function processor(): string {
  try {
    const flags = /^(?:flags|Features)\s*:.*$/m.exec(readFileSync('/proc/cpuinfo', 'utf8'));
    if (flags) return flags[0];
  } catch {
    // Only Linux has it.
  }
  return cpus()[0]?.model ?? '';
}

export class SessionCache {
  readonly #ort: Ort;
  readonly #folder: string;
  readonly #machine: string;
  #trimmed = false;

  constructor(ort: Ort, folder: string) {
    this.#ort = ort;
    this.#folder = folder;
    const { platform, arch } = process;
    this.#machine = JSON.stringify([VERSION, ort.env.versions, platform, arch, processor()]);
  }

  /** A session that gives the same bits, whether its model was in the cache or not. @throws what ONNX Runtime says of the model */
  async open({ bytes, options }: SessionRequest): Promise<InferenceSession> {
    const { InferenceSession } = this.#ort;
    if (bytes.length < LEAST_BYTES || bytes.length > MOST_BYTES) return InferenceSession.create(bytes, options);
    const settings = JSON.stringify(options);
    const key = createHash('sha256').update(this.#machine).update(settings).update(bytes).digest('hex').slice(0, 40);
    const file = join(this.#folder, `${key}.onnx`);
    const known = readChecked(file);
    if (known) return InferenceSession.create(known, { ...options, graphOptimizationLevel: 'disabled' });
    const optimised = temporaryName(file);
    try {
      mkdirSync(this.#folder, { recursive: true });
    } catch {
      return InferenceSession.create(bytes, options);
    }
    try {
      const session = await InferenceSession.create(bytes, { ...options, optimizedModelFilePath: optimised });
      this.#keep(optimised, file);
      return session;
    } catch {
      // The model is refused, or the place: without the place it shows.
      return InferenceSession.create(bytes, options);
    } finally {
      rmSync(optimised, { force: true });
    }
  }

  #keep(optimised: string, file: string): void {
    const temporary = temporaryName(file);
    try {
      const model = readFileSync(optimised);
      writeFileSync(temporary, Buffer.concat([checksum(model), model]));
      renameSync(temporary, file);
      this.#trim();
    } catch {
      rmSync(temporary, { force: true });
    }
  }

  /** Once a process: it makes little more than it found. */
  #trim(): void {
    if (this.#trimmed) return;
    this.#trimmed = true;
    const files = readdirSync(this.#folder).flatMap((name) => {
      const path = join(this.#folder, name);
      const stat = statSync(path, { throwIfNoEntry: false });
      return stat ? [{ path, size: stat.size, used: stat.mtimeMs }] : [];
    });
    let total = 0;
    for (const { path, size } of files.sort((a, b) => b.used - a.used)) {
      total += size;
      if (total > FOLDER_BYTES) rmSync(path, { force: true });
    }
  }
}

const checksum = (model: Uint8Array): Buffer => createHash('sha256').update(model).digest();

/** The model in a file, marked as used now; undefined when it is not there or not whole. */
function readChecked(file: string): Uint8Array | undefined {
  try {
    const whole = readFileSync(file);
    const model = whole.subarray(CHECKSUM_BYTES);
    if (!checksum(model).equals(whole.subarray(0, CHECKSUM_BYTES))) return undefined;
    const now = new Date();
    utimesSync(file, now, now);
    return model;
  } catch {
    return undefined;
  }
}

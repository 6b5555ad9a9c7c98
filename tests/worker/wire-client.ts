/**
 * @file A client of docs/worker-protocol.md written from that page alone: its own frames and safetensors, nothing of packages/, so that a
 * mistake that both ends of the repository share does not go unseen.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import type { Readable } from 'node:stream';

export type Tensor = Float64Array | Float32Array | Int32Array | Uint8Array;
export type Tensors = Record<string, Tensor>;
type Json = Record<string, unknown>;

export interface Reply {
  v: number;
  id: number;
  ms: number;
  result?: Json;
  partial?: Json;
  error?: { type: string; message: string; trace: string };
  tensors: Tensors;
}

const DTYPES = { F64: Float64Array, F32: Float32Array, I32: Int32Array, U8: Uint8Array };
/** Longer silence is a hang. */
const PATIENCE_MS = 60_000;

function dtypeOf(tensor: Tensor): string {
  const found = Object.entries(DTYPES).find(([, type]) => tensor instanceof type);
  if (!found) throw new Error(`no dtype for ${tensor.constructor.name}`);
  return found[0];
}

/** A safetensors blob. `shapes`: of tensors that are not flat. */
export function blob(metadata: unknown, tensors: Tensors = {}, shapes: Record<string, number[]> = {}): Buffer {
  const sorted = Object.entries(tensors).sort(([, a], [, b]) => b.BYTES_PER_ELEMENT - a.BYTES_PER_ELEMENT);
  const header: Json = { __metadata__: metadata };
  let at = 0;
  for (const [name, tensor] of sorted) {
    header[name] = {
      dtype: dtypeOf(tensor),
      shape: shapes[name] ?? [tensor.length],
      data_offsets: [at, at + tensor.byteLength],
    };
    at += tensor.byteLength;
  }
  const text = Buffer.from(JSON.stringify(header));
  const padded = Buffer.concat([text, Buffer.alloc(-text.length & 7, ' ')]);
  const data = sorted.map(([, { buffer, byteOffset, byteLength }]) => Buffer.from(buffer, byteOffset, byteLength));
  return Buffer.concat([lengthOf(padded.length), padded, ...data]);
}

export function lengthOf(bytes: number | bigint): Buffer {
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(bytes));
  return length;
}

export const framed = (body: Buffer): Buffer => Buffer.concat([lengthOf(body.length), body]);

/** A safetensors blob, or a file of that format. */
export function readBlob(body: Buffer): {
  metadata: Record<string, string>;
  tensors: Tensors;
  shapes: Record<string, number[]>;
} {
  const end = 8 + Number(body.readBigUInt64LE());
  const { __metadata__: metadata = {}, ...entries } = JSON.parse(body.toString('utf8', 8, end));
  const [tensors, shapes]: [Tensors, Record<string, number[]>] = [{}, {}];
  for (const [name, { dtype, shape, data_offsets }] of Object.entries<{
    dtype: keyof typeof DTYPES;
    shape: number[];
    data_offsets: [number, number];
  }>(entries)) {
    const bytes = Uint8Array.from(body.subarray(end + data_offsets[0], end + data_offsets[1]));
    tensors[name] = new DTYPES[dtype](bytes.buffer);
    shapes[name] = shape;
    const size = shape.reduce((a, b) => a * b, 1);
    if (tensors[name].length !== size)
      throw new Error(`tensor ${name}: ${tensors[name].length} values, not [${shape}]`);
  }
  return { metadata, tensors, shapes };
}

function readReply(body: Buffer): Reply & { shapes: Record<string, number[]> } {
  const { metadata, ...blob } = readBlob(body);
  return { ...JSON.parse(metadata.call!), ...blob };
}

export class WorkerClient {
  readonly #child: ChildProcess;
  readonly #replies: (Reply & { shapes: Record<string, number[]> })[] = [];
  #bytes: Buffer = Buffer.alloc(0);
  #wake = (): void => {};
  #log = '';
  #id = 0;
  #exited = false;
  /** The exit code, or the signal's name. */
  readonly exit: Promise<number | string>;

  /** @param command a line for the shell; its process is replaced by the program */
  constructor(command: string, env: Record<string, string> = {}) {
    this.#child = spawn('/bin/sh', ['-c', `exec ${command}`], {
      stdio: ['pipe', 'pipe', 'pipe', 'pipe'],
      env: { ...process.env, ...env },
    });
    this.#child.stdin!.on('error', () => {}); // A worker that ends shows by its exit.
    for (const stream of [this.#child.stdout!, this.#child.stderr!])
      stream.on('data', (text: Buffer) => {
        this.#log = (this.#log + text).slice(-2000);
      });
    (this.#child.stdio[3] as Readable).on('data', (chunk: Buffer) => {
      this.#bytes = Buffer.concat([this.#bytes, chunk]);
      while (this.#bytes.length >= 8) {
        const end = 8 + Number(this.#bytes.readBigUInt64LE());
        if (this.#bytes.length < end) break;
        this.#replies.push(readReply(this.#bytes.subarray(8, end)));
        this.#bytes = this.#bytes.subarray(end);
      }
      this.#wake();
    });
    this.exit = new Promise((resolve, reject) => {
      this.#child.on('error', reject);
      this.#child.on('close', (code, signal) => {
        this.#exited = true;
        this.#wake();
        resolve(code ?? signal ?? 'unknown');
      });
    });
  }

  write(bytes: Uint8Array): void {
    this.#child.stdin!.write(bytes);
  }

  end(): void {
    this.#child.stdin!.end();
  }

  kill(): void {
    this.#child.kill('SIGKILL');
  }

  /** Sends a request, returns its id. */
  send(method: string, params: object = {}, tensors: Tensors = {}, shapes: Record<string, number[]> = {}): number {
    this.#id += 1;
    const call = JSON.stringify({ v: 1, id: this.#id, method, params });
    this.write(framed(blob({ call }, tensors, shapes)));
    return this.#id;
  }

  /** The next reply. @throws when the worker ends or says nothing for too long */
  async next(): Promise<Reply & { shapes: Record<string, number[]> }> {
    let patient = true;
    const timer = setTimeout(() => {
      patient = false;
      this.#wake();
    }, PATIENCE_MS);
    while (this.#replies.length === 0) {
      if (this.#exited || !patient) {
        clearTimeout(timer);
        throw new Error(`the worker ${this.#exited ? 'ended' : 'hangs'}; its last output:\n${this.#log}`);
      }
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    clearTimeout(timer);
    return this.#replies.shift()!;
  }

  /** One call with nothing beside it: its last reply and the partial ones. An error is returned, not thrown. */
  async ask(method: string, params: object = {}, tensors: Tensors = {}, shapes: Record<string, number[]> = {}) {
    const id = this.send(method, params, tensors, shapes);
    const partial: (Reply & { shapes: Record<string, number[]> })[] = [];
    for (;;) {
      const reply = await this.next();
      const kinds = [reply.result, reply.partial, reply.error].filter((kind) => kind !== undefined);
      if (reply.v !== 1 || reply.id !== id || kinds.length !== 1 || !(reply.ms >= 0))
        throw new Error(`${method}: not a reply to call ${id}: ${JSON.stringify({ ...reply, tensors: undefined })}`);
      if (!reply.partial) return { ...reply, partial };
      partial.push(reply);
    }
  }

  /** As `ask`, and an error is thrown. */
  async call(method: string, params: object = {}, tensors: Tensors = {}, shapes: Record<string, number[]> = {}) {
    const answer = await this.ask(method, params, tensors, shapes);
    if (answer.error || !answer.result) throw new Error(`${method}: ${answer.error?.type}: ${answer.error?.message}`);
    return { ...answer, result: answer.result };
  }
}

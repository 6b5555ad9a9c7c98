/**
 * @file Frames of the worker protocol: u64 LE length, then one safetensors blob whose `__metadata__.call` is the call as JSON.
 * Requests go to a worker's stdin, replies come from its fd 3.
 */
import { decodeSafetensors, encodeSafetensors, type TensorData } from '@frame-thinker/checkpoint';
import { messageOf } from '@frame-thinker/core';
import { ProtocolError } from './errors.ts';

export const PROTOCOL_VERSION = 1;
/** Bytes of one frame that are accepted: more is a damaged length, not a call. */
export const MAX_FRAME_BYTES = 2 ** 31;

export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };
export type JsonObject = { [key: string]: Json };
export type Tensors = ReadonlyMap<string, TensorData>;

export interface Request {
  v: 1;
  id: number;
  method: string;
  params: JsonObject;
}

/** Exactly one of result (the last frame of a call), partial (more follow) and error. */
export interface Reply {
  v: 1;
  id: number;
  /** Milliseconds since the worker took up the call. */
  ms: number;
  result?: JsonObject;
  partial?: JsonObject;
  error?: { type: string; message: string; trace: string };
}

export interface Frame<Call extends Request | Reply> {
  call: Call;
  tensors: Tensors;
}

/** The chunks of one frame, to be written in order. Tensor data are not copied. */
export function encodeFrame(
  call: Request | Reply,
  tensors: Iterable<readonly [string, TensorData]> = [],
): Uint8Array[] {
  const blob = encodeSafetensors(tensors, { call: JSON.stringify(call) });
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(blob.reduce((sum, part) => sum + part.byteLength, 0)));
  return [length, ...blob];
}

function decodeBody(body: Uint8Array): { call: JsonObject; tensors: Tensors } {
  let tensors: Tensors;
  let call: unknown;
  try {
    const blob = decodeSafetensors(body, 'frame');
    tensors = blob.tensors;
    call = JSON.parse(blob.metadata.call ?? 'null');
  } catch (error) {
    throw new ProtocolError(`a frame of ${body.byteLength} bytes is damaged: ${messageOf(error)}`);
  }
  if (typeof call !== 'object' || call === null || Array.isArray(call))
    throw new ProtocolError('a frame has no call object in __metadata__.call');
  const { v, id } = call as JsonObject;
  if (v !== PROTOCOL_VERSION)
    throw new ProtocolError(`a frame speaks protocol version ${JSON.stringify(v)}, not ${PROTOCOL_VERSION}`);
  if (!Number.isSafeInteger(id)) throw new ProtocolError(`a frame has no call id (got ${JSON.stringify(id)})`);
  return { call: call as JsonObject, tensors };
}

const isRecord = (value: unknown): value is JsonObject =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

/** @throws ProtocolError when the body is not a request. */
export function decodeRequest(body: Uint8Array): Frame<Request> {
  const { call, tensors } = decodeBody(body);
  if (typeof call.method !== 'string') throw new ProtocolError(`call ${call.id} names no method`);
  if (!isRecord(call.params ?? {}))
    throw new ProtocolError(`call ${call.id} (${call.method}): params is not an object`);
  return {
    call: { v: 1, id: call.id as number, method: call.method, params: (call.params ?? {}) as JsonObject },
    tensors,
  };
}

/** @throws ProtocolError when the body is not a reply. */
export function decodeReply(body: Uint8Array): Frame<Reply> {
  const { call, tensors } = decodeBody(body);
  const given = (['result', 'partial', 'error'] as const).filter((key) => call[key] !== undefined);
  if (given.length !== 1 || !isRecord(call[given[0]!]))
    throw new ProtocolError(`reply ${call.id}: exactly one of result, partial, error must be there, as an object`);
  return { call: { ...call, v: 1, id: call.id as number, ms: Number(call.ms ?? 0) } as Reply, tensors };
}

/** Cuts a byte stream into the bodies of frames. */
export class FrameSplitter {
  readonly #maxBytes: number;
  readonly #length = Buffer.alloc(8);
  #lengthBytes = 0;
  #body: Uint8Array | undefined;
  #bodyBytes = 0;

  constructor(options: { maxBytes?: number } = {}) {
    this.#maxBytes = options.maxBytes ?? MAX_FRAME_BYTES;
  }

  /**
   * Takes the next bytes, returns the bodies that they complete (each in memory of its own).
   * @throws ProtocolError when a length is beyond the limit; the stream can't be read on then.
   */
  push(chunk: Uint8Array): Uint8Array[] {
    const bodies: Uint8Array[] = [];
    let at = 0;
    while (at < chunk.byteLength) {
      if (!this.#body) {
        const take = Math.min(8 - this.#lengthBytes, chunk.byteLength - at);
        this.#length.set(chunk.subarray(at, at + take), this.#lengthBytes);
        this.#lengthBytes += take;
        at += take;
        if (this.#lengthBytes < 8) break;
        const length = this.#length.readBigUInt64LE();
        if (length > BigInt(this.#maxBytes))
          throw new ProtocolError(`a frame of ${length} bytes is named, the limit is ${this.#maxBytes}`);
        this.#body = new Uint8Array(Number(length));
        this.#bodyBytes = 0;
      }
      const take = Math.min(this.#body.byteLength - this.#bodyBytes, chunk.byteLength - at);
      this.#body.set(chunk.subarray(at, at + take), this.#bodyBytes);
      this.#bodyBytes += take;
      at += take;
      if (this.#bodyBytes < this.#body.byteLength) break;
      bodies.push(this.#body);
      this.#body = undefined;
      this.#lengthBytes = 0;
    }
    return bodies;
  }

  /** @throws ProtocolError when the stream ended inside a frame. */
  end(): void {
    if (this.#body)
      throw new ProtocolError(
        `the stream ended inside a frame: ${this.#bodyBytes} of ${this.#body.byteLength} bytes were there`,
      );
    if (this.#lengthBytes > 0) throw new ProtocolError('the stream ended inside the length of a frame');
  }
}

/** @file Calls of one request and one reply, sent again while the connection is lost and may come back. */
import { type ServiceError, status } from '@grpc/grpc-js';
import {
  type Channel,
  errorOfStatus,
  isRecoverable,
  type RequestOf,
  type ResponseOf,
  type UnaryMethod,
} from './channel.ts';
import type { RayError } from './errors.ts';

const RETRY_MS = 500;
/** An attempt that held this long had a connection: its failure is a new loss. */
const HELD_MS = 5_000;

/** What calls go by: the session's data stream, once there is one. */
export interface Connection {
  /** Why the session is over. */
  readonly ended: RayError | undefined;
  /** When the connection was lost last, on the clock of `performance.now()`. */
  readonly lostAt: number;
}

export interface CallOptions {
  /** Until when, on the clock of `Date.now()`, the call may be tried; absent: while the connection may come back. */
  deadline?: number;
  metadata?: Readonly<Record<string, string>>;
}

const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

export class Calls {
  readonly #channel: Channel;
  readonly #graceMs: number;
  readonly #connection: () => Connection | undefined;

  constructor(channel: Channel, graceSeconds: number, connection: () => Connection | undefined) {
    this.#channel = channel;
    this.#graceMs = graceSeconds * 1000;
    this.#connection = connection;
  }

  /** One call, whose request is made anew for each attempt. @throws RayPythonError what the server raised; RayConnectionError */
  async call<Name extends UnaryMethod>(
    name: Name,
    request: () => RequestOf<Name>,
    options: CallOptions = {},
  ): Promise<ResponseOf<Name>> {
    const { deadline = Number.POSITIVE_INFINITY } = options;
    let failingSince = Number.POSITIVE_INFINITY;
    let why: ServiceError | undefined;
    for (;;) {
      const begun = performance.now();
      try {
        return await this.#channel.unary(name, request(), options);
      } catch (caught) {
        const error = caught as ServiceError;
        // That the time is over says nothing of what was wrong before.
        if (!why || error.code !== status.DEADLINE_EXCEEDED) why = error;
        const failedAt = performance.now();
        failingSince = failedAt - begun > HELD_MS ? failedAt : Math.min(failingSince, failedAt);
        if (!isRecoverable(error) || Date.now() >= deadline) break;
        if (this.#graceMs > 0 || options.deadline !== undefined) await sleep(RETRY_MS);
        const connection = this.#connection();
        if (connection?.ended) throw connection.ended;
        const lostAt = Math.max(failingSince, connection?.lostAt ?? 0);
        if (options.deadline === undefined && failedAt - lostAt >= this.#graceMs) break;
      }
    }
    throw errorOfStatus(why, this.#channel.address);
  }
}

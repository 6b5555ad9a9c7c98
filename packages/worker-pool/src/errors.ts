/** @file Typed errors of the worker protocol. */

/** A frame that is not of the protocol: bad length, bad header, bad JSON, or a stream that ended inside one. */
export class ProtocolError extends Error {
  override name = 'ProtocolError';
}

/** What a worker answered to a bad call, or that it died. */
export class WorkerError extends Error {
  override name = 'WorkerError';
  /** The error's type in the worker, or 'died'. */
  readonly type: string;
  readonly method: string;
  /** The stack in the worker, or its last log lines when it died. */
  readonly trace: string;
  constructor(type: string, method: string, message: string, trace: string) {
    super(message);
    this.type = type;
    this.method = method;
    this.trace = trace;
  }
}

/** @file Typed errors of the worker protocol. */

/** A frame that is not of the protocol: bad length, bad header, bad JSON, or a stream that ended inside one. */
export class ProtocolError extends Error {
  override name = 'ProtocolError';
}

/** What a worker answered to a bad call, or that it died. */
export class WorkerError extends Error {
  override name = 'WorkerError';
  /** The error's type in the worker, a Death, or 'lost': bulk data that another node had are not there any more. */
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

/** What a worker's death makes of its calls; 'not_started' where it never ran. */
export type Death = 'died' | 'not_started';

export const isDeath = (error: unknown): error is WorkerError =>
  error instanceof WorkerError && (error.type === 'died' || error.type === 'not_started');

export const isLoss = (error: unknown): error is WorkerError => error instanceof WorkerError && error.type === 'lost';

/** @file What goes wrong: with the connection, in the cluster, in remote code. */

/** All errors of this package that have to do with Ray. */
export class RayError extends Error {
  override name = 'RayError';
}

/** No connection, or one that was lost for good. */
export class RayConnectionError extends RayError {
  override name = 'RayConnectionError';
}

/** The cluster runs a Ray whose protocol this client was not generated for. */
export class RayVersionError extends RayError {
  override name = 'RayVersionError';
}

/** A value that can't go to Python, or one from there that is not plain data. */
export class RayValueError extends RayError {
  override name = 'RayValueError';
}

/** `get` waited for as long as it was allowed to. */
export class RayTimeoutError extends RayError {
  override name = 'RayTimeoutError';
}

/** The facts of a Python exception. */
export interface PythonException {
  /** `module.Class`, e.g. `builtins.ValueError`. */
  type: string;
  message: string;
  /** As Python printed it; empty where there is none. */
  traceback: string;
}

/** An exception that Python raised: by the client's server, or, as its subclasses, in the cluster. */
export class RayPythonError extends RayError {
  override name = 'RayPythonError';
  readonly type: string;
  readonly traceback: string;

  constructor({ type, message, traceback }: PythonException) {
    super(message);
    this.type = type;
    this.traceback = traceback;
  }
}

/** A function or a method raised. `type` and `message` are those of what it raised. */
export class RayTaskError extends RayPythonError {
  override name = 'RayTaskError';
}

/** The actor is dead, and with it the call. */
export class RayActorDiedError extends RayPythonError {
  override name = 'RayActorDiedError';
}

/** The actor can't be reached now; the call may have been run or not. */
export class RayActorUnavailableError extends RayPythonError {
  override name = 'RayActorUnavailableError';
}

/** The process that ran the function died. */
export class RayWorkerCrashedError extends RayPythonError {
  override name = 'RayWorkerCrashedError';
}

/** The task was cancelled. */
export class RayTaskCancelledError extends RayPythonError {
  override name = 'RayTaskCancelledError';
}

/** The object is gone with the node that had it: what was asked for, or the argument of a task, which then did not run. */
export class RayObjectLostError extends RayPythonError {
  override name = 'RayObjectLostError';
}

/** No node has, or gets, what the task or actor asks for. */
export class RayUnschedulableError extends RayPythonError {
  override name = 'RayUnschedulableError';
}

/** Ray could not set up the runtime environment. */
export class RayRuntimeEnvError extends RayPythonError {
  override name = 'RayRuntimeEnvError';
}

/** By class of `ray.exceptions`; what is not here is a RayPythonError. */
export const EXCEPTION_CLASSES: Readonly<Record<string, new (exception: PythonException) => RayPythonError>> = {
  RayTaskError,
  ActorDiedError: RayActorDiedError,
  RayActorError: RayActorDiedError,
  ActorUnavailableError: RayActorUnavailableError,
  WorkerCrashedError: RayWorkerCrashedError,
  LocalRayletDiedError: RayWorkerCrashedError,
  NodeDiedError: RayWorkerCrashedError,
  OutOfMemoryError: RayWorkerCrashedError,
  TaskCancelledError: RayTaskCancelledError,
  ObjectLostError: RayObjectLostError,
  ObjectFetchTimedOutError: RayObjectLostError,
  ReferenceCountingAssertionError: RayObjectLostError,
  ObjectFreedError: RayObjectLostError,
  OwnerDiedError: RayObjectLostError,
  ObjectReconstructionFailedError: RayObjectLostError,
  TaskUnschedulableError: RayUnschedulableError,
  ActorUnschedulableError: RayUnschedulableError,
  RuntimeEnvSetupError: RayRuntimeEnvError,
};

/** @file What a session gives out: objects, functions, actor classes and actors of the cluster. */
import { RayError } from './errors.ts';
import type { ActorOptions, MethodOptions, TaskOptions } from './options.ts';
import { Reference } from './reference.ts';

/** A call of a function, a class or an actor's method, with arguments. */
export interface Task<Options> {
  /** Of the function, the class or the method. */
  name: string;
  /** The function or the class as an object, or the actor. */
  target: Reference;
  args: readonly unknown[];
  options: Options;
}

/** What handles ask of their session. */
export interface Scheduler {
  runFunction(task: Task<TaskOptions>): Promise<ObjectRef[]>;
  createActor(task: Task<ActorOptions>): Promise<ActorHandle>;
  runMethod(task: Task<MethodOptions>): Promise<ObjectRef[]>;
  get(ref: ObjectRef): Promise<unknown>;
  releaseSoon(...references: readonly Reference[]): void;
}

/** An object of the cluster. It is kept there until it is released, or the session ends. */
export class ObjectRef extends Reference {
  readonly kind = 'Object';
}

export function onlyOne(refs: readonly ObjectRef[], what: string): ObjectRef {
  if (refs.length !== 1) throw new RayError(`${what} returns ${refs.length} objects: use the call for several`);
  return refs[0]!;
}

/** A function that runs anywhere in the cluster. Arguments that are references arrive as their objects. */
export class RemoteFunction {
  readonly name: string;
  readonly #scheduler: Scheduler;
  readonly #code: ObjectRef;

  constructor(scheduler: Scheduler, code: { name: string; ref: ObjectRef }) {
    this.#scheduler = scheduler;
    this.name = code.name;
    this.#code = code.ref;
  }

  /** Schedules a run; the object is there when it has ended. */
  async remote(args: readonly unknown[] = [], options: Omit<TaskOptions, 'numReturns'> = {}): Promise<ObjectRef> {
    return onlyOne(await this.remoteAll(args, options), this.name);
  }

  /** The same with several objects returned (`numReturns`). */
  remoteAll(args: readonly unknown[] = [], options: TaskOptions = {}): Promise<ObjectRef[]> {
    return this.#scheduler.runFunction({ name: this.name, target: this.#code, args, options });
  }
}

/** A class of which actors are made. */
export class ActorClass {
  readonly name: string;
  readonly #scheduler: Scheduler;
  readonly #code: ObjectRef;

  constructor(scheduler: Scheduler, code: { name: string; ref: ObjectRef }) {
    this.#scheduler = scheduler;
    this.name = code.name;
    this.#code = code.ref;
  }

  /** Starts an actor. A failure to start it shows in the first call. */
  create(args: readonly unknown[] = [], options: ActorOptions = {}): Promise<ActorHandle> {
    return this.#scheduler.createActor({ name: this.name, target: this.#code, args, options });
  }
}

/** A running actor. It ends when the session does, unless it is detached. */
export class ActorHandle extends Reference {
  readonly kind = 'Actor';
  readonly #scheduler: Scheduler;

  constructor(scheduler: Scheduler, id: Uint8Array) {
    super(id);
    this.#scheduler = scheduler;
  }

  /** Calls a method; calls of one actor run in order unless it was made with `maxConcurrency`. */
  async remote(method: string, args: readonly unknown[] = []): Promise<ObjectRef> {
    return onlyOne(await this.remoteAll(method, args), method);
  }

  /** The same with several objects returned (`numReturns`). */
  remoteAll(method: string, args: readonly unknown[] = [], options: MethodOptions = {}): Promise<ObjectRef[]> {
    return this.#scheduler.runMethod({ name: method, target: this, args, options });
  }

  /** Calls a method and brings its result here; nothing of it stays in the cluster. */
  async call(method: string, args: readonly unknown[] = []): Promise<unknown> {
    const ref = await this.remote(method, args);
    try {
      return await this.#scheduler.get(ref);
    } finally {
      this.#scheduler.releaseSoon(ref);
    }
  }
}

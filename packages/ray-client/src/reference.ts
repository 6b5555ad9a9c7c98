/** @file References: objects and actors of the cluster, by their ids, and which of them a session holds. */
import { RayValueError } from './errors.ts';

/** An object or an actor that lives in the cluster. Only this class's own instances travel as references. */
export abstract class Reference {
  abstract readonly kind: 'Object' | 'Actor';
  readonly id: Uint8Array;

  constructor(id: Uint8Array) {
    this.id = id;
  }

  /** The id, as Ray prints it. */
  get hex(): string {
    return Buffer.from(this.id).toString('hex');
  }
}

/**
 * What the server holds for a session, as far as the client can know. A task with a reference that the server does not hold ends
 * the whole session there, so such a one is never sent. An object that is released while a `get` of it waits is given up when that
 * is answered: the server could stop for good.
 */
export class HeldReferences {
  readonly #held = new Set<string>();
  /** How many answers are awaited, by object. */
  readonly #awaited = new Map<string, number>();
  /** Released here, and the server does not know it yet. */
  readonly #due = new Map<string, Reference>();

  /** Takes note of a reference that the server gave out, again perhaps. */
  add<R extends Reference>(reference: R): R {
    this.#held.add(reference.hex);
    this.#due.delete(reference.hex);
    return reference;
  }

  /** @throws RayValueError for a reference that was released, or belongs to another session */
  check({ kind, hex }: Reference): void {
    if (this.#held.has(hex)) return;
    const what = kind === 'Object' ? 'object' : 'actor';
    throw new RayValueError(`this session does not hold the ${what} ${hex}: it was released, or is another session's`);
  }

  /** Releases what is held of `references`; `takeDue` then gives it. */
  release(references: Iterable<Reference>): void {
    for (const reference of references) if (this.#held.delete(reference.hex)) this.#due.set(reference.hex, reference);
  }

  /** What the server can be told to give up now. */
  takeDue(): Reference[] {
    const due = [...this.#due.values()].filter(({ hex }) => !this.#awaited.has(hex));
    for (const { hex } of due) this.#due.delete(hex);
    return due;
  }

  /** The server gave these up: also where an answer of before has named one of them since. */
  gone(references: Iterable<Reference>): void {
    for (const { hex } of references) this.#held.delete(hex);
  }

  /** An answer with an object's value is awaited from now on. */
  await({ hex }: Reference): void {
    this.#awaited.set(hex, (this.#awaited.get(hex) ?? 0) + 1);
  }

  /** One is not awaited any more. Whether something is due. */
  answered({ hex }: Reference): boolean {
    const left = (this.#awaited.get(hex) ?? 1) - 1;
    if (left > 0) this.#awaited.set(hex, left);
    else this.#awaited.delete(hex);
    return this.#due.size > 0;
  }
}

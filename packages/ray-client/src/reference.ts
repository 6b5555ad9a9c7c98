/** @file References: objects and actors of the cluster, by their ids. */

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

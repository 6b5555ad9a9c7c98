/** @file What a pickle holds, as plain data. Nothing of it is ever imported, called or looked up as a JavaScript property. */

/** A global by its exact names. Only a name: reading it does nothing. */
export interface PickleGlobal {
  readonly kind: 'global';
  /** `module name`, the key of an allow-list. */
  readonly id: string;
}

export interface PickleTuple {
  readonly kind: 'tuple';
  readonly items: readonly PickleValue[];
}

export interface PickleList {
  readonly kind: 'list';
  readonly items: PickleValue[];
}

export interface PickleSet {
  readonly kind: 'set';
  readonly items: PickleValue[];
}

/** Dicts and OrderedDicts, in order. Keys are strings or integers. */
export interface PickleDict {
  readonly kind: 'dict';
  readonly ordered: boolean;
  readonly entries: Map<string | number, PickleValue>;
  /** What BUILD gave an OrderedDict (attributes such as `_metadata`); kept apart from its entries. */
  state: PickleValue | undefined;
}

/** `callee(*args)` that was written down and not made. */
export interface PickleCall {
  readonly kind: 'call';
  readonly callee: PickleGlobal;
  readonly args: readonly PickleValue[];
  /** What BUILD gave it. */
  state: PickleValue | undefined;
}

/** An instance of a class, `cls.__new__(cls, *args)`, that was not made. */
export interface PickleObject {
  readonly kind: 'object';
  readonly cls: PickleGlobal;
  readonly args: readonly PickleValue[];
  /** What BUILD gave it: mostly a dict of attributes. */
  state: PickleValue | undefined;
}

/** A call or an instance of what the list doesn't name, written down and not made. Only read where that is asked for. */
export interface PickleOpaque {
  readonly kind: 'opaque';
  /** Made by NEWOBJ, not by REDUCE. */
  readonly instance: boolean;
  /** A global, or itself something opaque, such as a class that the pickle carries. */
  readonly callee: PickleValue;
  readonly args: readonly PickleValue[];
  state: PickleValue | undefined;
}

/** A reference to something outside the pickle. */
export interface PicklePersistent {
  readonly kind: 'persistent';
  readonly id: PickleValue;
}

export type PickleContainer =
  | PickleGlobal
  | PickleTuple
  | PickleList
  | PickleSet
  | PickleDict
  | PickleCall
  | PickleObject
  | PickleOpaque
  | PicklePersistent;

/** bigint: integers beyond 2^53. Values may refer to each other, also in cycles. */
export type PickleValue = null | boolean | number | bigint | string | Uint8Array | PickleContainer;

export function isContainer(value: PickleValue | undefined): value is PickleContainer {
  return typeof value === 'object' && value !== null && !(value instanceof Uint8Array);
}

/** Whether a value is of a kind; narrows it. */
export function isKind<K extends PickleContainer['kind']>(
  value: PickleValue | undefined,
  kind: K,
): value is Extract<PickleContainer, { kind: K }> {
  return isContainer(value) && value.kind === kind;
}

/** An attribute that BUILD gave what was made; undefined where there is none. */
export function attributeOf(value: PickleValue | undefined, name: string): PickleValue | undefined {
  if (!isKind(value, 'object') && !isKind(value, 'call') && !isKind(value, 'opaque')) return undefined;
  return isKind(value.state, 'dict') ? value.state.entries.get(name) : undefined;
}

export const pickleGlobal = (id: string): PickleGlobal => ({ kind: 'global', id });
export const pickleTuple = (...items: PickleValue[]): PickleTuple => ({ kind: 'tuple', items });
export const pickleList = (...items: PickleValue[]): PickleList => ({ kind: 'list', items });
export const pickleDict = (
  entries: Iterable<readonly [string | number, PickleValue]> = [],
  ordered = false,
): PickleDict => ({ kind: 'dict', ordered, entries: new Map(entries), state: undefined });
export const pickleCall = (callee: string, ...args: PickleValue[]): PickleCall => ({
  kind: 'call',
  callee: pickleGlobal(callee),
  args,
  state: undefined,
});
export const pickleObject = (cls: string, state?: PickleValue, ...args: PickleValue[]): PickleObject => ({
  kind: 'object',
  cls: pickleGlobal(cls),
  args,
  state,
});
export const picklePersistent = (id: PickleValue): PicklePersistent => ({ kind: 'persistent', id });

/** @file JavaScript values as Python's, and back: plain data and references, nothing else. */
import {
  type GlobalUse,
  isContainer,
  isKind,
  type PickleContainer,
  PickleError,
  type PickleValue,
  pickleCall,
  picklePersistent,
  readPickle,
  writePickleParts,
} from '@frame-thinker/pickle';
import { RayValueError } from './errors.ts';
import { Reference } from './reference.ts';

const STUB = 'ray.util.client.client_pickler PickleStub';
/** What results may hold besides plain data: the references that Ray Client writes. */
const LISTED: ReadonlyMap<string, readonly GlobalUse[]> = new Map([
  [STUB, ['value', 'class']],
  ['copyreg _reconstructor', ['call']],
  ['builtins tuple', ['value']],
  ['collections OrderedDict', ['dict']],
]);

/** Values nest at most so deep, in both directions. */
const MAX_DEPTH = 200;
/** Integers have at most so many bits, in both directions: as the reader of pickles takes them. */
const MAX_INTEGER_BITS = 512;

/** Kind and id of a reference, as results name it. */
export type ReferenceName = Pick<Reference, 'kind' | 'id'>;
type MakeReference = (name: ReferenceName) => unknown;
/** Pickle data of a reference. @throws RayValueError for one that can't be sent */
export type WriteReference = (reference: Reference) => PickleValue;

/** As the server of a session takes its references. */
export function referenceStub({ kind, id }: Reference, clientId: string): PickleValue {
  return picklePersistent(pickleCall(STUB, kind, clientId, id, null, null));
}

/** An argument list, as opposed to an array, which is a list. */
export class PythonTuple {
  readonly items: readonly unknown[];
  constructor(...items: unknown[]) {
    this.items = items;
  }
}

/** A number that must be a float in Python although it is whole. */
export class PythonFloat {
  readonly value: number;
  constructor(value: number) {
    this.value = value;
  }
}

const LONE_SURROGATE = /\p{Surrogate}/u;

function fromPrimitive(value: unknown): PickleValue {
  if (value === null || value === undefined) return null;
  if (typeof value === 'boolean' || typeof value === 'number') return value;
  if (typeof value === 'bigint') {
    if (BigInt.asIntN(MAX_INTEGER_BITS, value) === value) return value;
    throw new RayValueError(`an integer of more than ${MAX_INTEGER_BITS} bits can't be sent: send its text or bytes`);
  }
  if (typeof value === 'string') {
    if (!LONE_SURROGATE.test(value)) return value;
    throw new RayValueError("a string with half of a surrogate pair can't be sent: it is not Unicode text");
  }
  throw new RayValueError(`a ${typeof value} can't be sent to Python`);
}

type Convert = (item: unknown) => PickleValue;

/** Python finds members of sets by a hash, which a tuple has by its items, and a list, a set and a dict have not. */
function isHashable(value: PickleValue): boolean {
  if (isKind(value, 'tuple')) return value.items.every(isHashable);
  return !isKind(value, 'list') && !isKind(value, 'set') && !isKind(value, 'dict');
}

function fromSet(set: ReadonlySet<unknown>, convert: Convert): PickleValue {
  const items = Array.from(set, convert);
  if (items.every(isHashable)) return { kind: 'set', items };
  throw new RayValueError(
    "a Set that holds an array, an object, a Map or a Set can't be sent: Python can't hash those",
  );
}

function fromEntries(entries: Iterable<readonly [unknown, unknown]>, convert: Convert): PickleValue {
  const converted = new Map<string | number, PickleValue>();
  for (const [key, item] of entries) {
    if (key === undefined || typeof key === 'function' || (typeof key === 'object' && key !== null))
      throw new RayValueError(
        `a Map with a key that is ${key === undefined ? 'undefined' : nameOf(key)} can't be sent`,
      );
    // Python takes any of these as a key; results have strings and integers only.
    converted.set(fromPrimitive(key) as string | number, convert(item));
  }
  return { kind: 'dict', ordered: false, entries: converted, state: undefined };
}

const nameOf = (value: object): string => `a ${value.constructor?.name ?? 'value'}`;

function fromObject(value: object, convert: Convert): PickleValue {
  // No array is ever spread into arguments, of which there can't be many.
  if (value instanceof PythonTuple) return { kind: 'tuple', items: Array.from(value.items, convert) };
  if (Array.isArray(value)) return { kind: 'list', items: Array.from(value, convert) };
  if (value instanceof Set) return fromSet(value, convert);
  if (value instanceof Map) return fromEntries(value, convert);
  const prototype = Object.getPrototypeOf(value);
  if (prototype !== Object.prototype && prototype !== null)
    throw new RayValueError(`${nameOf(value)} can't be sent: plain data, Uint8Array and references can`);
  return fromEntries(
    Object.entries(value).filter(([, item]) => item !== undefined),
    convert,
  );
}

/**
 * A value as pickle data: null, booleans, numbers (whole ones become int), bigint, strings, Uint8Array (bytes), arrays (list),
 * PythonTuple, PythonFloat, Set, Map and plain objects (dict), references.
 * @throws RayValueError for anything else, and for what Python could not read or could not send back
 */
export function toPickleValue(value: unknown, writeReference: WriteReference): PickleValue {
  const convert = (item: unknown, depth: number): PickleValue => {
    if (typeof item !== 'object' || item === null) return fromPrimitive(item);
    if (item instanceof Uint8Array) return item;
    if (item instanceof Reference) return writeReference(item);
    if (item instanceof PythonFloat)
      return Number.isInteger(item.value) ? pickleCall('builtins float', item.value) : item.value;
    if (depth === MAX_DEPTH)
      throw new RayValueError(`a value nested deeper than ${MAX_DEPTH}, or within itself, can't be sent`);
    return fromObject(item, (part) => convert(part, depth + 1));
  };
  return convert(value, 0);
}

/** The pickle of a value, in parts. */
export function encodeValue(value: unknown, writeReference: WriteReference): Uint8Array[] {
  return writePickleParts(toPickleValue(value, writeReference));
}

/** The pickle of a call's arguments, in parts: a tuple of them, and no keywords. */
export function encodeArguments(args: readonly unknown[], writeReference: WriteReference): Uint8Array[] {
  const items = Array.from(args, (arg) => toPickleValue(arg, writeReference));
  const keywords: PickleValue = { kind: 'dict', ordered: false, entries: new Map(), state: undefined };
  return writePickleParts({ kind: 'tuple', items: [{ kind: 'tuple', items }, keywords] });
}

function nameOfStub(value: PickleValue): ReferenceName {
  // NEWOBJ has the fields as arguments; the server's copyreg form has (class, tuple, fields).
  let fields: readonly PickleValue[] = [];
  if (isKind(value, 'object') && value.cls.id === STUB) fields = value.args;
  else if (isKind(value, 'call') && isKind(value.args[2], 'tuple')) fields = value.args[2].items;
  const [kind, , id] = fields;
  if ((kind === 'Object' || kind === 'Actor') && id instanceof Uint8Array) return { kind, id };
  throw new RayValueError('a result holds a reference that is not read');
}

/** Pickle data as JavaScript: dicts with string keys become objects without a prototype, others Maps. */
export function fromPickleValue(value: PickleValue, reference: MakeReference): unknown {
  const made = new Map<PickleContainer, unknown>();
  const container = (item: PickleContainer): unknown => {
    switch (item.kind) {
      case 'tuple':
        return item.items.map(convert);
      case 'list': {
        const list: unknown[] = [];
        made.set(item, list); // A list may hold itself.
        for (const part of item.items) list.push(convert(part));
        return list;
      }
      case 'set':
        return new Set(item.items.map(convert));
      case 'dict': {
        const entries = [...item.entries].map(([key, part]) => [key, convert(part)] as const);
        if (!entries.every(([key]) => typeof key === 'string')) return new Map(entries);
        return Object.assign(Object.create(null), Object.fromEntries(entries));
      }
      case 'persistent':
        return reference(nameOfStub(item.id));
      default:
        throw new RayValueError(`a result holds a Python ${item.kind}, which is not plain data`);
    }
  };
  const convert = (item: PickleValue): unknown => {
    if (!isContainer(item)) return item;
    if (!made.has(item)) made.set(item, container(item));
    return made.get(item);
  };
  return convert(value);
}

/** Reads a result. @throws PickleError when it holds something that is not on the list */
export function decodeValue(bytes: Uint8Array, reference: MakeReference): unknown {
  // A plain array, of which the bytes in it are parts; gRPC gives a Buffer.
  const value = readPickle(new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength), {
    source: 'result',
    globals: LISTED,
    maxDepth: MAX_DEPTH,
    maxBytes: Number.POSITIVE_INFINITY,
  });
  return fromPickleValue(value, reference);
}

export { PickleError };

/** @file JavaScript values as Python's, and back: plain data and references, nothing else. */
import {
  type GlobalUse,
  isContainer,
  isKind,
  type PickleContainer,
  PickleError,
  type PickleValue,
  pickleCall,
  pickleDict,
  pickleList,
  picklePersistent,
  pickleTuple,
  readPickle,
  writePickleParts,
} from '@frame-thinker/pickle';
import { RayValueError } from './errors.ts';

const STUB = 'ray.util.client.client_pickler PickleStub';
/** What results may hold besides plain data: the references that Ray Client writes. */
const LISTED: ReadonlyMap<string, readonly GlobalUse[]> = new Map([
  [STUB, ['value', 'class']],
  ['copyreg _reconstructor', ['call']],
  ['builtins tuple', ['value']],
  ['collections OrderedDict', ['dict']],
]);

/** A reference that lives in the client: an object or an actor. */
export interface Reference {
  readonly kind: 'Object' | 'Actor';
  readonly id: Uint8Array;
}
type MakeReference = (reference: Reference) => unknown;

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

const isReference = (value: object): value is Reference =>
  'kind' in value &&
  (value.kind === 'Object' || value.kind === 'Actor') &&
  'id' in value &&
  value.id instanceof Uint8Array;

function fromObject(value: object, toPickle: (item: unknown) => PickleValue): PickleValue {
  if (value instanceof Uint8Array) return value;
  if (value instanceof PythonTuple) return pickleTuple(...value.items.map(toPickle));
  if (value instanceof PythonFloat)
    return Number.isInteger(value.value) ? pickleCall('builtins float', value.value) : value.value;
  if (Array.isArray(value)) return pickleList(...value.map(toPickle));
  if (value instanceof Set) return { kind: 'set', items: [...value].map(toPickle) };
  if (value instanceof Map) return pickleDict([...value].map(([key, item]) => [key, toPickle(item)] as const));
  const prototype = Object.getPrototypeOf(value);
  if (prototype === Object.prototype || prototype === null)
    return pickleDict(
      Object.entries(value)
        .filter(([, item]) => item !== undefined)
        .map(([key, item]) => [key, toPickle(item)] as const),
    );
  throw new RayValueError(
    `a ${value.constructor?.name ?? 'value'} can't be sent: plain data, Uint8Array and references can`,
  );
}

/**
 * A value as pickle data: null, booleans, numbers (whole ones become int), bigint, strings, Uint8Array (bytes), arrays (list),
 * PythonTuple, PythonFloat, Set, Map and plain objects (dict), references, PickleValues of `pickled`.
 * @throws RayValueError for anything else
 */
export function toPickleValue(value: unknown, clientId: string): PickleValue {
  const toPickle = (item: unknown): PickleValue => {
    if (item === null || item === undefined) return null;
    if (typeof item === 'boolean' || typeof item === 'number' || typeof item === 'bigint' || typeof item === 'string')
      return item;
    if (typeof item !== 'object') throw new RayValueError(`a ${typeof item} can't be sent to Python`);
    if (isReference(item)) return picklePersistent(pickleCall(STUB, item.kind, clientId, item.id, null, null));
    return fromObject(item, toPickle);
  };
  return toPickle(value);
}

/** The pickle of a value, in parts. */
export function encodeValue(value: unknown, clientId: string): Uint8Array[] {
  return writePickleParts(toPickleValue(value, clientId));
}

function stubOf(value: PickleValue): Reference {
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
        return reference(stubOf(item.id));
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
    maxBytes: Number.POSITIVE_INFINITY,
  });
  return fromPickleValue(value, reference);
}

export { PickleError };

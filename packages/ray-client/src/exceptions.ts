/** @file Pickled Python exceptions as typed errors. Their classes may be any; they are read as names and never made. */
import { attributeOf, isContainer, isKind, type PickleValue, readPickle } from '@frame-thinker/pickle';
import { EXCEPTION_CLASSES, type PythonException, RayPythonError } from './errors.ts';

const RAY_EXCEPTIONS = 'ray.exceptions ';
/** Escape codes of terminals, in which Ray colours parts of a traceback. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: escape codes begin with one.
const COLOURS = /\u001b\[[0-9;]*m/g;

function read(bytes: Uint8Array): PickleValue {
  return readPickle(bytes, { source: 'exception', globals: new Map(), unlisted: 'keep' });
}

/** `module Class` of what was made; a class that the pickle itself carries says so in its making. */
function classOf(value: PickleValue): string | undefined {
  if (!isKind(value, 'opaque')) return undefined;
  if (isKind(value.callee, 'global')) return value.callee.id;
  if (!isKind(value.callee, 'opaque')) return undefined;
  const [, name, , keywords] = value.callee.args;
  if (typeof name !== 'string') return undefined;
  const module = isKind(keywords, 'dict') ? keywords.entries.get('__module__') : undefined;
  return `${typeof module === 'string' ? module : 'unknown'} ${name}`;
}

const dotted = (id: string | undefined): string => id?.replace(' ', '.') ?? 'unknown';

/** The arguments of an exception as Python's str() shows them, about. */
function textOf(args: readonly PickleValue[]): string {
  const plain = args.filter((arg) => !isContainer(arg) && arg !== null);
  return plain.map(String).join(', ');
}

/** What a class of ray.exceptions says, by its attributes: each has its own. */
function describe(value: PickleValue, id: string): PythonException {
  const args = isKind(value, 'opaque') ? value.args : [];
  const text = (name: string, index: number): string => {
    const found = attributeOf(value, name) ?? args[index];
    return typeof found === 'string' ? found.replace(COLOURS, '') : '';
  };
  if (id === `${RAY_EXCEPTIONS}RayTaskError`) {
    const traceback = text('traceback_str', 1);
    const cause = attributeOf(value, 'cause') ?? args[2] ?? null;
    const last = traceback.trim().split('\n').at(-1) ?? '';
    // The last line is `Class: message`; the cause knows the class with its module, and a message of several lines.
    const message = textOf(isKind(cause, 'opaque') ? cause.args : []) || last.replace(/^[\w.]+: /, '');
    return { type: dotted(classOf(cause)), message: message || last, traceback };
  }
  const message = text('error_msg', -1) || text('error_message', 1) || textOf(args) || dotted(id);
  return { type: dotted(id), message, traceback: '' };
}

function errorOf(value: PickleValue): RayPythonError {
  const id = classOf(value);
  const Class = id?.startsWith(RAY_EXCEPTIONS) ? EXCEPTION_CLASSES[id.slice(RAY_EXCEPTIONS.length)] : undefined;
  return new (Class ?? RayPythonError)(describe(value, id ?? 'unknown unknown'));
}

/** The error of a pickled exception that the server sent as one; any bytes give some error. */
export function decodeException(bytes: Uint8Array): RayPythonError {
  try {
    return errorOf(read(bytes));
  } catch (error) {
    const message = `an exception that can't be read: ${error instanceof Error ? error.message : error}`;
    return new RayPythonError({ type: 'unknown', message, traceback: '' });
  }
}

/** The error, when a result is an exception of Ray's own: a failed task looks like one that returned that. */
export function failureOf(bytes: Uint8Array): RayPythonError | undefined {
  try {
    const value = read(bytes);
    return classOf(value)?.startsWith(RAY_EXCEPTIONS) ? errorOf(value) : undefined;
  } catch {
    return undefined;
  }
}

/** @file Pickled Python exceptions as typed errors. Their classes may be any; they are read as names and never made. */
import { attributeOf, isContainer, isKind, type PickleValue, readPickle } from '@frame-thinker/pickle';
import { EXCEPTION_CLASSES, RayObjectLostError, RayPythonError, RayTaskError } from './errors.ts';

const RAY_EXCEPTIONS = 'ray.exceptions ';
const UNSERIALIZABLE = 'UnserializableException';
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
function showArguments(args: readonly PickleValue[]): string {
  const plain = args.filter((arg) => !isContainer(arg) && arg !== null);
  return plain.map(String).join(', ');
}

const FRAME = /^ {2}File ".*", line \d+/;

/**
 * What was raised, by the end of a traceback: `Class: message` after the last frame and its source, which are indented. A message
 * may have several lines.
 */
function raisedIn(traceback: string): { type: string; message: string } {
  let lines = traceback.trimEnd().split('\n');
  // A group is drawn as a tree: its own part comes first.
  const branch = lines.findIndex((line) => /^ *\+-\+-/.test(line));
  if (branch > 0) lines = lines.slice(0, branch).map((line) => line.replace(/^ {2}\| /, ''));
  const frame = lines.findLastIndex((line) => FRAME.test(line));
  const after = lines.findIndex((line, i) => i > frame && !line.startsWith('    '));
  const text = frame < 0 || after < 0 ? lines.at(-1)! : lines.slice(after).join('\n');
  const [, name, message = ''] = /^([A-Za-z_][\w.]*)(?:: (.*))?$/s.exec(text) ?? [];
  // Python leaves the module of its own classes out.
  if (name) return { type: name.includes('.') ? name : `builtins.${name}`, message: message || name };
  return { type: 'unknown', message: text };
}

/** Frames of Ray in which a task ends whose argument failed: nothing of the function ran. */
const ARGUMENT_FAILED = /, in ray\._raylet\.raise_if_dependency_failed$/m;

function taskError(value: PickleValue): RayPythonError {
  const cause = attributeOf(value, 'cause') ?? argumentOf(value, 2) ?? null;
  const traceback = textOf(attributeOf(value, 'traceback_str') ?? argumentOf(value, 1));
  const id = classOf(cause);
  const raised = raisedIn(traceback);
  // Made by a function of its own, or put by Ray in the place of an exception that no pickle takes: the traceback knows it.
  if (!isKind(cause, 'opaque') || id === undefined || id === `${RAY_EXCEPTIONS}RayError`)
    return new RayTaskError({ ...raised, traceback });
  // The cause knows the class with its module.
  const exception = { type: dotted(id), message: messageOf(cause, id) || raised.message, traceback };
  const lost = ARGUMENT_FAILED.test(traceback) && classFor(id) === RayObjectLostError;
  return lost ? new RayObjectLostError(exception) : new RayTaskError(exception);
}

const argumentOf = (value: PickleValue, index: number): PickleValue | undefined =>
  isKind(value, 'opaque') ? value.args[index] : undefined;

const textOf = (value: PickleValue | undefined): string =>
  typeof value === 'string' ? value.replace(COLOURS, '') : '';

/** What an exception says; those of ray.exceptions by their attributes, of which each has its own. '' where it says nothing. */
function messageOf(value: PickleValue, id: string): string {
  const args = isKind(value, 'opaque') ? value.args : [];
  if (!id.startsWith(RAY_EXCEPTIONS)) return showArguments(args);
  const attribute = (name: string): string => textOf(attributeOf(value, name));
  const object = attribute('object_ref_hex');
  const reason = attribute('reason_message');
  if (object) return `the object ${object} is lost (${id.slice(RAY_EXCEPTIONS.length)})${reason && `: ${reason}`}`;
  return attribute('error_msg') || attribute('error_message') || textOf(args[1]) || showArguments(args);
}

const classFor = (id: string): (typeof EXCEPTION_CLASSES)[string] | undefined =>
  id.startsWith(RAY_EXCEPTIONS) ? EXCEPTION_CLASSES[id.slice(RAY_EXCEPTIONS.length)] : undefined;

/**
 * An exception that could be pickled and not read again, such as one whose `__init__` takes other arguments than it hands on: Ray
 * sends what Python printed of its own exception around it. That begins with the class, or has it after the frames.
 */
function errorOfText(printed: string): RayPythonError {
  const traceback = printed.replace(COLOURS, '');
  const own = [...traceback.matchAll(/(?:^|\n\n)ray\.exceptions\.(\w+): /g)].at(-1);
  if (!own) return new RayPythonError({ type: `ray.exceptions.${UNSERIALIZABLE}`, message: traceback, traceback });
  const [{ length }, name = ''] = own;
  if (name === 'RayTaskError') return new RayTaskError({ ...raisedIn(traceback), traceback });
  const message = traceback.slice(own.index + length).trimEnd();
  return new (EXCEPTION_CLASSES[name] ?? RayPythonError)({ type: `ray.exceptions.${name}`, message, traceback });
}

function errorOf(value: PickleValue): RayPythonError {
  const id = classOf(value) ?? 'unknown unknown';
  if (id === `${RAY_EXCEPTIONS}RayTaskError`) return taskError(value);
  const printed = id === `${RAY_EXCEPTIONS}${UNSERIALIZABLE}` ? argumentOf(value, 0) : undefined;
  if (typeof printed === 'string') return errorOfText(printed);
  const type = dotted(id);
  return new (classFor(id) ?? RayPythonError)({ type, message: messageOf(value, id) || type, traceback: '' });
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

/**
 * @file Reads a pickle as data. A small machine of a stack, marks and a memo, as CPython's, but a global is only a name,
 * REDUCE and NEWOBJ write down what would be called, and every name must be on the caller's list, exactly.
 */
import { PickleError } from './error.ts';
import { OP } from './opcodes.ts';
import { isContainer, isKind, type PickleContainer, type PickleGlobal, type PickleValue } from './value.ts';

/**
 * What a global may be used for. value: only named (a dtype, a storage class); call: REDUCE; class: NEWOBJ;
 * dict: REDUCE without arguments makes an ordered dict; member: REDUCE with a listed global and a name gives the global
 * `module global.name`, which must be listed itself (getattr, as protocols below 4 write a class within a class).
 */
export type GlobalUse = 'value' | 'call' | 'class' | 'dict' | 'member';

export interface ReadPickleOptions {
  /** Names the pickle in errors: a file. */
  source: string;
  /** By `module name`, exactly. Anything else is refused. A name may have several uses. */
  globals: ReadonlyMap<string, readonly GlobalUse[]>;
  /**
   * What is not on the list: refused (default), or kept as `opaque` data with its name. Kept is for showing what is there,
   * an exception of any class; nothing is made of it either.
   */
  unlisted?: 'refuse' | 'keep';
  /** Nesting of values. Default 200. */
  maxDepth?: number;
  /** Bytes of a pickle. Default 16 MiB: the description of a thousand sharded tensors has less than one half. */
  maxBytes?: number;
  /** Tuples, lists, dicts, calls and objects, which take the most memory a byte: some 250 bytes each. Default a million. */
  maxContainers?: number;
}

const LATIN = new TextDecoder('latin1');
const UTF8 = new TextDecoder('utf-8', { fatal: true });
/** Bytes of an integer: Python's hashes and counters have 8; longer ones would cost time quadratic in their length. */
const MAX_INTEGER_BYTES = 64;

class Machine {
  readonly bytes: Uint8Array;
  readonly view: DataView;
  readonly options: ReadPickleOptions;
  readonly maxDepth: number;
  readonly maxContainers: number;
  /** What is not on the list is kept as data. */
  readonly keeps: boolean;
  containers = 0;
  /** Memo 0, 1, 2, …, as they are mostly written; a map of millions would take most of the time. */
  readonly memo: PickleValue[] = [];
  /** Numbers that were written before those in front of them. */
  readonly sparse = new Map<number, PickleValue>();
  /** Heights of the stack where a MARK lies. */
  readonly marks: number[] = [];
  /** Of containers that hold containers; others have depth 1. A weak map would take several times as long. */
  readonly depths = new Map<object, number>();
  stack: PickleValue[] = [];
  at = 0;
  opcodeAt = 0;

  constructor(bytes: Uint8Array, options: ReadPickleOptions) {
    this.bytes = bytes;
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.options = options;
    this.keeps = options.unlisted === 'keep';
    this.maxDepth = options.maxDepth ?? 200;
    this.maxContainers = options.maxContainers ?? 1_000_000;
  }

  fail(what: string): PickleError {
    return new PickleError(this.options.source, this.opcodeAt, what);
  }

  /** Moves over `count` bytes and returns where they begin. */
  take(count: number): number {
    const begin = this.at;
    if (count > this.bytes.byteLength - begin) throw this.fail(`truncated: ${count} bytes are named, the pickle ends`);
    this.at += count;
    return begin;
  }

  u8(): number {
    return this.view.getUint8(this.take(1));
  }
  u16(): number {
    return this.view.getUint16(this.take(2), true);
  }
  u32(): number {
    return this.view.getUint32(this.take(4), true);
  }
  length64(): number {
    const value = this.view.getBigUint64(this.take(8), true);
    if (value > BigInt(this.bytes.byteLength)) throw this.fail(`truncated: ${value} bytes are named, the pickle ends`);
    return Number(value);
  }
  slice(length: number): Uint8Array {
    const begin = this.take(length);
    return this.bytes.subarray(begin, begin + length);
  }
  text(length: number): string {
    try {
      return UTF8.decode(this.slice(length));
    } catch (error) {
      throw error instanceof PickleError ? error : this.fail('damaged: a string that is not UTF-8');
    }
  }
  line(): string {
    const end = this.bytes.indexOf(0x0a, this.at);
    if (end < 0 || end - this.at > 1000) throw this.fail('damaged: a line that does not end');
    const text = LATIN.decode(this.slice(end - this.at));
    this.at++;
    return text;
  }
  integer(length: number): number | bigint {
    if (length > MAX_INTEGER_BYTES) throw this.fail(`an integer of ${length} bytes`);
    let value = 0n;
    const bytes = this.slice(length);
    for (let i = length - 1; i >= 0; i--) value = (value << 8n) | BigInt(bytes[i] as number);
    value = BigInt.asIntN(8 * length, value);
    const number = Number(value);
    return Number.isSafeInteger(number) ? number : value;
  }

  push(value: PickleValue): void {
    this.stack.push(value);
  }
  /** Pushes a new container that holds `values`. */
  create(container: PickleContainer, values: Iterable<PickleValue> = []): void {
    if (++this.containers > this.maxContainers)
      throw this.fail(`more than ${this.maxContainers} containers (tuples, lists, dicts, objects); refused`);
    this.push(this.hold(container, values));
  }
  pop(): PickleValue {
    if (this.stack.length <= (this.marks.at(-1) ?? 0)) throw this.fail('damaged: the stack is empty');
    return this.stack.pop() as PickleValue;
  }
  top(): PickleValue {
    const value = this.stack.at(-1);
    if (this.stack.length <= (this.marks.at(-1) ?? 0) || value === undefined)
      throw this.fail('damaged: the stack is empty');
    return value;
  }
  popMark(): PickleValue[] {
    const height = this.marks.pop();
    if (height === undefined) throw this.fail('damaged: no mark');
    return this.stack.splice(height);
  }

  /** The depth of `parent` grows with what it holds. */
  hold<T extends object>(parent: T, values: Iterable<PickleValue>): T {
    let depth = this.depths.get(parent) ?? 1;
    for (const value of values) if (isContainer(value)) depth = Math.max(depth, (this.depths.get(value) ?? 1) + 1);
    if (depth > this.maxDepth) throw this.fail(`values nested deeper than ${this.maxDepth}`);
    if (depth > 1) this.depths.set(parent, depth);
    return parent;
  }
  tuple(items: PickleValue[]): void {
    this.create({ kind: 'tuple', items }, items);
  }

  global(module: string, name: string): PickleGlobal {
    const id = `${module} ${name}`;
    if (!this.keeps && !this.options.globals.has(id))
      throw this.fail(`global ${JSON.stringify(`${module}.${name}`)} is not on the list of what may be read; refused`);
    return { kind: 'global', id };
  }
  /** The global on top of the stack's rest, if it may be used so. */
  allowed(value: PickleValue, use: GlobalUse): PickleGlobal | null {
    if (!isKind(value, 'global')) {
      if (this.keeps) return null;
      throw this.fail('something that is no global is called; refused');
    }
    return this.options.globals.get(value.id)?.includes(use) ? value : null;
  }
  args(value: PickleValue): readonly PickleValue[] {
    if (!isKind(value, 'tuple')) throw this.fail('damaged: arguments that are no tuple');
    return value.items;
  }

  /** Writes down a call or an instance of what is not listed for it. */
  keep(callee: PickleValue, { instance, args }: { instance: boolean; args: readonly PickleValue[] }): void {
    if (!this.keeps) {
      const name = JSON.stringify((callee as PickleGlobal).id);
      throw this.fail(`global ${name} may not be ${instance ? 'instantiated' : 'called'}; refused`);
    }
    this.create({ kind: 'opaque', instance, callee, args, state: undefined }, [callee, ...args]);
  }
  reduce(): void {
    const args = this.args(this.pop());
    const callee = this.pop();
    if (this.allowed(callee, 'dict')) {
      const [first] = args;
      if (args.length > 1 || (first !== undefined && !(isKind(first, 'list') && first.items.length === 0)))
        throw this.fail('an ordered dict made with arguments; refused');
      this.create({ kind: 'dict', ordered: true, entries: new Map(), state: undefined });
      return;
    }
    if (this.allowed(callee, 'member')) {
      const [owner, name, ...more] = args;
      if (!isKind(owner, 'global') || typeof name !== 'string' || more.length > 0)
        throw this.fail('a member of something that is no global; refused');
      const [module = '', cls = ''] = owner.id.split(' ');
      this.push(this.global(module, `${cls}.${name}`));
      return;
    }
    const named = this.allowed(callee, 'call');
    if (named) this.create({ kind: 'call', callee: named, args, state: undefined }, args);
    else this.keep(callee, { instance: false, args });
  }
  newObject(): void {
    const args = this.args(this.pop());
    const cls = this.pop();
    const named = this.allowed(cls, 'class');
    if (named) this.create({ kind: 'object', cls: named, args, state: undefined }, args);
    else this.keep(cls, { instance: true, args });
  }
  build(): void {
    const state = this.pop();
    const target = this.top();
    const made = isKind(target, 'object') || isKind(target, 'call') || isKind(target, 'opaque');
    const takes = made || (isKind(target, 'dict') && target.ordered);
    if (!takes) throw this.fail('a state is set on something that takes none; refused');
    if (target.state !== undefined) throw this.fail('a state is set twice; refused');
    target.state = state;
    this.hold(target, [state]);
  }
  append(items: PickleValue[], kind: 'list' | 'set'): void {
    const target = this.top();
    if (!isKind(target, kind)) throw this.fail(`damaged: items are added to something that is no ${kind}`);
    for (const item of items) target.items.push(item);
    this.hold(target, items);
  }
  setItems(items: PickleValue[]): void {
    const target = this.top();
    if (!isKind(target, 'dict')) throw this.fail('items are set on something that is no dict; refused');
    if (items.length % 2 !== 0) throw this.fail('damaged: a key without a value');
    for (let i = 0; i < items.length; i += 2) {
      const key = items[i] as PickleValue;
      if (typeof key !== 'string' && typeof key !== 'number')
        throw this.fail('a dict key that is neither a string nor an integer');
      target.entries.set(key, items[i + 1] as PickleValue);
    }
    this.hold(target, items);
  }
  remember(index: number): void {
    const value = this.top();
    if (index > this.memo.length) this.sparse.set(index, value);
    else {
      this.memo[index] = value;
      if (this.sparse.size > 0) this.sparse.delete(index);
    }
  }
  recall(index: number): void {
    const value = index < this.memo.length ? this.memo[index] : this.sparse.get(index);
    if (value === undefined) throw this.fail(`damaged: memo ${index} is empty`);
    this.push(value);
  }
  protocol(): void {
    const version = this.u8();
    if (version < 2 || version > 5) throw this.fail(`pickle protocol ${version} is not read (2 to 5 are)`);
  }
  stackGlobal(): void {
    const name = this.pop();
    const module = this.pop();
    if (typeof module !== 'string' || typeof name !== 'string') throw this.fail('damaged: a global without a name');
    this.push(this.global(module, name));
  }
}

const persistent = (m: Machine) => {
  const id = m.pop();
  m.create({ kind: 'persistent', id }, [id]);
};

const INSTRUCTIONS: ReadonlyMap<number, (m: Machine) => void> = new Map<number, (m: Machine) => void>([
  [OP.PROTO, (m) => m.protocol()],
  [OP.FRAME, (m) => void m.length64()],
  [OP.MARK, (m) => void m.marks.push(m.stack.length)],
  [OP.POP, (m) => void (m.marks.at(-1) === m.stack.length ? m.marks.pop() : m.pop())],
  [OP.POP_MARK, (m) => void m.popMark()],
  [OP.NONE, (m) => m.push(null)],
  [OP.NEWTRUE, (m) => m.push(true)],
  [OP.NEWFALSE, (m) => m.push(false)],
  [OP.BININT, (m) => m.push(m.view.getInt32(m.take(4), true))],
  [OP.BININT1, (m) => m.push(m.u8())],
  [OP.BININT2, (m) => m.push(m.u16())],
  [OP.LONG1, (m) => m.push(m.integer(m.u8()))],
  [OP.LONG4, (m) => m.push(m.integer(m.u32()))],
  [OP.BINFLOAT, (m) => m.push(m.view.getFloat64(m.take(8), false))],
  [OP.BINUNICODE, (m) => m.push(m.text(m.u32()))],
  [OP.SHORT_BINUNICODE, (m) => m.push(m.text(m.u8()))],
  [OP.BINUNICODE8, (m) => m.push(m.text(m.length64()))],
  [OP.BINBYTES, (m) => m.push(m.slice(m.u32()))],
  [OP.SHORT_BINBYTES, (m) => m.push(m.slice(m.u8()))],
  [OP.BINBYTES8, (m) => m.push(m.slice(m.length64()))],
  [OP.BYTEARRAY8, (m) => m.push(m.slice(m.length64()))],
  [OP.EMPTY_TUPLE, (m) => m.tuple([])],
  [OP.TUPLE1, (m) => m.tuple([m.pop()])],
  [OP.TUPLE2, (m) => m.tuple([m.pop(), m.pop()].reverse())],
  [OP.TUPLE3, (m) => m.tuple([m.pop(), m.pop(), m.pop()].reverse())],
  [OP.TUPLE, (m) => m.tuple(m.popMark())],
  [OP.EMPTY_LIST, (m) => m.create({ kind: 'list', items: [] })],
  [OP.APPEND, (m) => m.append([m.pop()], 'list')],
  [OP.APPENDS, (m) => m.append(m.popMark(), 'list')],
  [OP.EMPTY_SET, (m) => m.create({ kind: 'set', items: [] })],
  [OP.ADDITEMS, (m) => m.append(m.popMark(), 'set')],
  [
    OP.FROZENSET,
    (m) => {
      const items = m.popMark();
      m.create({ kind: 'set', items }, items);
    },
  ],
  [OP.EMPTY_DICT, (m) => m.create({ kind: 'dict', ordered: false, entries: new Map(), state: undefined })],
  [OP.SETITEM, (m) => m.setItems([m.pop(), m.pop()].reverse())],
  [OP.SETITEMS, (m) => m.setItems(m.popMark())],
  [OP.BINPUT, (m) => m.remember(m.u8())],
  [OP.LONG_BINPUT, (m) => m.remember(m.u32())],
  [OP.MEMOIZE, (m) => m.remember(m.memo.length + m.sparse.size)],
  [OP.BINGET, (m) => m.recall(m.u8())],
  [OP.LONG_BINGET, (m) => m.recall(m.u32())],
  [OP.GLOBAL, (m) => m.push(m.global(m.line(), m.line()))],
  [OP.STACK_GLOBAL, (m) => m.stackGlobal()],
  [OP.REDUCE, (m) => m.reduce()],
  [OP.NEWOBJ, (m) => m.newObject()],
  [OP.BUILD, (m) => m.build()],
  [OP.BINPERSID, persistent],
]);

/**
 * Reads one pickle. Nothing is imported, called or evaluated.
 * @throws PickleError naming source and byte offset: a global that is not on the list, an opcode that is not read,
 * damaged or truncated bytes, values nested too deep, bytes after the end.
 */
export function readPickle(bytes: Uint8Array, options: ReadPickleOptions): PickleValue {
  const { maxBytes = 16 * 2 ** 20 } = options;
  const machine = new Machine(bytes, options);
  if (bytes.byteLength > maxBytes) throw machine.fail(`${bytes.byteLength} bytes of pickle, more than ${maxBytes}`);
  if (bytes[0] !== OP.PROTO) throw machine.fail('not a pickle of protocol 2 to 5');
  for (;;) {
    machine.opcodeAt = machine.at;
    const opcode = machine.u8();
    if (opcode === OP.STOP) break;
    const run = INSTRUCTIONS.get(opcode);
    if (!run) throw machine.fail(`opcode 0x${opcode.toString(16).padStart(2, '0')} is not read; refused`);
    run(machine);
  }
  const value = machine.pop();
  if (machine.stack.length > 0 || machine.marks.length > 0) throw machine.fail('damaged: values are left over');
  if (machine.at !== bytes.byteLength)
    throw machine.fail(`damaged: ${bytes.byteLength - machine.at} bytes follow the end of the pickle`);
  return value;
}

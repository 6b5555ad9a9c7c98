import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { PickleError } from './error.ts';
import { type GlobalUse, readPickle } from './reader.ts';
import {
  attributeOf,
  isKind,
  type PickleValue,
  pickleCall,
  pickleDict,
  pickleGlobal,
  pickleList,
  pickleObject,
  picklePersistent,
  pickleTuple,
} from './value.ts';
import { writePickle, writePickleParts } from './writer.ts';

const globals = new Map<string, GlobalUse[]>([
  ['collections OrderedDict', ['dict']],
  ['torch float32', ['value']],
  ['torch Size', ['call']],
  ['mesh Mesh', ['class', 'value']],
]);
const read = (bytes: Uint8Array, options = {}) => readPickle(bytes, { source: 'x.pt', globals, ...options });
/** Bytes of opcodes: numbers and text. */
const code = (...parts: (number | string)[]) =>
  Uint8Array.from(parts.flatMap((part) => (typeof part === 'number' ? [part] : [...Buffer.from(part, 'latin1')])));

const leaf = fc.oneof(
  fc.constant(null),
  fc.boolean(),
  fc.integer(),
  fc.bigInt({ min: -(2n ** 70n), max: -(2n ** 60n) }),
  fc.double({ noNaN: true }),
  fc.string({ unit: 'grapheme' }),
  fc.constant(pickleGlobal('torch float32')),
  fc.uint8Array({ maxLength: 5 }).map((bytes): PickleValue => bytes),
);
const values: fc.Memo<PickleValue> = fc.memo((depth) => (depth <= 1 ? leaf : fc.oneof(leaf, container(depth))));
const container = (depth: number): fc.Arbitrary<PickleValue> => {
  const items = fc.array(values(depth - 1), { maxLength: 4 });
  const entries = fc.array(fc.tuple(fc.oneof(fc.string(), fc.integer()), values(depth - 1)), { maxLength: 4 });
  return fc.oneof(
    items.map((list) => pickleTuple(...list)),
    items.map((list) => pickleList(...list)),
    fc.tuple(entries, fc.boolean()).map(([list, ordered]) => pickleDict(list, ordered)),
    items.map((list) => pickleCall('torch Size', ...list)),
    fc.tuple(entries, items).map(([list, args]) => pickleObject('mesh Mesh', pickleDict(list), ...args)),
    values(depth - 1).map(picklePersistent),
  );
};

describe('pickle', () => {
  it('reads what was written', () => {
    fc.assert(
      fc.property(values(4), (value) => {
        expect(read(writePickle(value))).toEqual(value);
      }),
      { numRuns: 300 },
    );
  });

  it('keeps what is not listed as data where that is asked for', () => {
    const cls: PickleValue = {
      kind: 'opaque',
      instance: false,
      callee: pickleGlobal('cloudpickle _make_class'),
      args: ['Mine', pickleTuple(pickleGlobal('builtins ValueError'))],
      state: undefined,
    };
    const error: PickleValue = {
      kind: 'opaque',
      instance: false,
      callee: cls,
      args: ['why'],
      state: pickleDict([['a', 1]]),
    };
    const object: PickleValue = {
      ...error,
      instance: true,
      callee: pickleGlobal('mesh Other'),
      args: [],
      state: undefined,
    };
    const value = pickleTuple(error, object, pickleCall('torch Size', 1));
    expect(read(writePickle(value), { unlisted: 'keep' })).toEqual(value);
    expect(attributeOf(error, 'a')).toBe(1);
    expect(() => read(writePickle(value))).toThrow(/global "cloudpickle\._make_class" is not on the list/);
  });

  it('writes large bytes as parts, without a copy', () => {
    const large = new Uint8Array(100_000).fill(7);
    const parts = writePickleParts(pickleTuple(large, 'after', large));
    expect(parts.filter((part) => part === large)).toHaveLength(2);
    expect(read(new Uint8Array(Buffer.concat(parts)))).toEqual(pickleTuple(large, 'after', large));
  });

  it('keeps identity and cycles', () => {
    const list = pickleList();
    list.items.push(list, 'a', 'a');
    const back = read(writePickle(list));
    if (!isKind(back, 'list')) throw new Error('not a list');
    expect(back.items[0]).toBe(back);
    expect(back.items.slice(1)).toEqual(['a', 'a']);
  });

  it('reads framed protocol 4 with memoized short strings', () => {
    const frame = [0x95, 9, 0, 0, 0, 0, 0, 0, 0];
    expect(read(code(0x80, 4, ...frame, 0x8c, 2, 'ab', 0x94, 'h', 0, 0x86, '.'))).toEqual(pickleTuple('ab', 'ab'));
    expect(read(code(0x80, 4, 0x8c, 5, 'torch', 0x8c, 7, 'float32', 0x93, '.'))).toEqual(pickleGlobal('torch float32'));
  });

  it('takes the member of a listed class only where the member is listed itself', () => {
    const listed = new Map<string, GlobalUse[]>([
      ...globals,
      ['__builtin__ getattr', ['member']],
      ['mesh Mesh.Axis', ['class']],
    ]);
    const member = (owner: string, name: string) =>
      code(0x80, 2, 'c__builtin__\ngetattr\n', owner, 'X', name.length, 0, 0, 0, name, 0x86, 'R', ')', 0x81, '.');
    const found = read(member('cmesh\nMesh\n', 'Axis'), { globals: listed });
    expect(isKind(found, 'object') && found.cls.id).toBe('mesh Mesh.Axis');
    expect(() => read(member('cmesh\nMesh\n', '__init__'), { globals: listed })).toThrow(
      'global "mesh.Mesh.__init__" is not on the list',
    );
    expect(() => read(member('ctorch\nfloat32\n', 'Axis'), { globals: listed })).toThrow('"torch.float32.Axis"');
    expect(() => read(member('N', 'Axis'), { globals: listed })).toThrow('a member of something that is no global');
    expect(() => read(member('cmesh\nMesh\n', 'Axis'))).toThrow('global "__builtin__.getattr" is not on the list');
  });

  it('keeps a dict key that names a prototype a plain key', () => {
    const evil = pickleDict([
      ['__proto__', pickleDict([['polluted', 'yes']])],
      ['constructor', 'c'],
    ]);
    const object = read(writePickle(pickleObject('mesh Mesh', evil)));
    expect(attributeOf(object, 'constructor')).toBe('c');
    expect(attributeOf(object, 'toString')).toBeUndefined();
    expect(({} as Record<string, unknown>).polluted).toBeUndefined();
  });

  it.each<[string, Uint8Array, RegExp]>([
    ['a global that is not listed', code(0x80, 2, 'cposix\nsystem\n.'), /x\.pt: at byte 2: global "posix\.system"/],
    [
      'a dotted name below a listed module',
      code(0x80, 4, 0x8c, 5, 'torch', 0x8c, 23, 'serialization.os.system', 0x93, '.'),
      /at byte 34: global "torch\.serialization\.os\.system"/,
    ],
    ['a call of what is only a value', code(0x80, 2, 'ctorch\nfloat32\n)R.'), /at byte 18: .*may not be called/],
    ['an instance of what is only a call', code(0x80, 2, 'ctorch\nSize\n)\x81.'), /may not be instantiated/],
    ['a call of a string', code(0x80, 2, 'X\x01\0\0\0a)R.'), /no global is called/],
    ['a state of a plain dict', code(0x80, 2, '}}b.'), /takes none/],
    ['an ordered dict with arguments', writePickle(pickleCall('collections OrderedDict', 1)), /with arguments/],
    ['protocol 0', code('I1\n.'), /not a pickle of protocol 2 to 5/],
    ['protocol 6', code(0x80, 6, 'N.'), /protocol 6/],
    ['INST', code(0x80, 2, '(iposix\nsystem\n.'), /opcode 0x69/],
    ['EXT1', code(0x80, 2, 0x82, 1, '.'), /opcode 0x82/],
    ['a truncated string', code(0x80, 2, 'X\xff'), /truncated/],
    ['no end', code(0x80, 2, 'N'), /truncated/],
    ['bytes after the end', code(0x80, 2, 'N.N'), /1 bytes follow/],
    ['an empty stack', code(0x80, 2, '.'), /stack is empty/],
    ['values left over', code(0x80, 2, 'NN.'), /left over/],
    ['a mark left over', code(0x80, 2, 'N(.'), /stack is empty/],
    ['an empty memo', code(0x80, 2, 'h', 3, '.'), /memo 3/],
    ['deep tuples', code(0x80, 2, ')', '\x85'.repeat(300), '.'), /deeper than 200/],
    ['a list as a key', code(0x80, 2, '}]Ns.'), /dict key/],
  ])('refuses %s', (_what, bytes, message) => {
    expect(() => read(bytes)).toThrow(message);
    expect(() => read(bytes)).toThrow(PickleError);
  });

  it('keeps what is remembered under any number, in any order', () => {
    // 5 and 1 are put before 0; 1 is put again once its turn comes; the next one by itself is the third.
    const put = (value: number, memo: number) => ['K', value, 'q', memo];
    const read5 = code(0x80, 4, '(', ...put(50, 5), ...put(51, 1), ...put(52, 0), ...put(53, 1), 'K', 54, 0x94);
    expect(read(Buffer.concat([read5, code('h', 5, 'h', 1, 'h', 0, 't.')]))).toEqual(
      pickleTuple(50, 51, 52, 53, 54, 50, 53, 52),
    );
    expect(() => read(Buffer.concat([read5, code('h', 4, 't.')]))).toThrow('memo 4 is empty');
  });
  it('bounds bytes and containers', () => {
    expect(() => read(code(0x80, 2, '}'.repeat(50), '.'), { maxContainers: 20 })).toThrow('more than 20 containers');
    expect(() => read(code(0x80, 2, 'N.'), { maxBytes: 3 })).toThrow('4 bytes of pickle');
  });
});

/** @file Writes values as pickle protocol 2, in the opcodes that torch.save uses. */
import { OP } from './opcodes.ts';
import { isContainer, type PickleContainer, type PickleValue } from './value.ts';

const ORDERED_DICT = 'collections OrderedDict';

/** From so many bytes on, bytes become a part of their own instead of being copied. */
const OWN_PART = 65_536;

/** Bytes that grow, in parts. */
class Output {
  readonly #parts: Uint8Array[] = [];
  #bytes = new Uint8Array(1024);
  #length = 0;

  reserve(count: number): DataView {
    if (this.#length + count > this.#bytes.byteLength) {
      const larger = new Uint8Array(2 * (this.#length + count));
      larger.set(this.#bytes.subarray(0, this.#length));
      this.#bytes = larger;
    }
    const view = new DataView(this.#bytes.buffer, this.#length, count);
    this.#length += count;
    return view;
  }
  byte(value: number): void {
    this.reserve(1).setUint8(0, value);
  }
  u32(value: number): void {
    this.reserve(4).setUint32(0, value, true);
  }
  u64(value: number): void {
    this.reserve(8).setBigUint64(0, BigInt(value), true);
  }
  write(bytes: Uint8Array): void {
    if (bytes.byteLength >= OWN_PART) {
      this.#parts.push(this.#bytes.slice(0, this.#length), bytes);
      this.#length = 0;
      return;
    }
    const view = this.reserve(bytes.byteLength);
    new Uint8Array(view.buffer, view.byteOffset, bytes.byteLength).set(bytes);
  }
  done(): Uint8Array[] {
    return [...this.#parts, this.#bytes.slice(0, this.#length)];
  }
}

/** Little-endian two's complement, as few bytes as hold the sign. */
function integerBytes(value: bigint): Uint8Array {
  let length = 1;
  while (BigInt.asIntN(8 * length, value) !== value) length++;
  return Uint8Array.from({ length }, (_, i) => Number((value >> BigInt(8 * i)) & 255n));
}

/**
 * Encodes a value as a pickle. Values that occur twice are written once, so cycles through lists, dicts and states work.
 * Bytes need protocol 3 and those beyond 4 GiB protocol 4, which is then named.
 */
export function writePickle(value: PickleValue): Uint8Array {
  const parts = writePickleParts(value);
  const bytes = new Uint8Array(parts.reduce((sum, part) => sum + part.byteLength, 0));
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.byteLength;
  }
  return bytes;
}

/** The pickle in parts, to be put together in order. Large bytes of the value are parts themselves, not copies. */
export function writePickleParts(value: PickleValue): Uint8Array[] {
  const out = new Output();
  const memo = new Map<object | string, number>();
  let protocol = 2;

  const remember = (key: object | string) => {
    memo.set(key, memo.size);
    out.byte(OP.LONG_BINPUT);
    out.u32(memo.size - 1);
  };
  const recall = (key: object | string): boolean => {
    const index = memo.get(key);
    if (index === undefined) return false;
    out.byte(OP.LONG_BINGET);
    out.u32(index);
    return true;
  };
  const writeInteger = (number: number | bigint) => {
    if (number >= 0 && number < 256) {
      out.byte(OP.BININT1);
      out.byte(Number(number));
    } else if (number >= -(2 ** 31) && number < 2 ** 31) {
      out.byte(OP.BININT);
      out.reserve(4).setInt32(0, Number(number), true);
    } else {
      const bytes = integerBytes(BigInt(number));
      out.byte(OP.LONG1);
      out.byte(bytes.byteLength);
      out.write(bytes);
    }
  };
  const writeGlobal = (id: string) => {
    const key = `global ${id}`;
    if (recall(key)) return;
    out.byte(OP.GLOBAL);
    out.write(new TextEncoder().encode(`${id.replace(' ', '\n')}\n`));
    remember(key);
  };
  const writeTuple = (items: readonly PickleValue[]) => {
    if (items.length > 0) out.byte(OP.MARK);
    for (const item of items) writeValue(item);
    out.byte(items.length > 0 ? OP.TUPLE : OP.EMPTY_TUPLE);
  };
  const writeState = (state: PickleValue | undefined) => {
    if (state === undefined) return;
    writeValue(state);
    out.byte(OP.BUILD);
  };
  const writeContainer = (container: PickleContainer): void => {
    switch (container.kind) {
      case 'global':
        writeGlobal(container.id);
        break;
      case 'tuple':
        writeTuple(container.items);
        remember(container);
        break;
      case 'list':
      case 'set':
        if (container.kind === 'set') protocol = Math.max(protocol, 4);
        out.byte(container.kind === 'list' ? OP.EMPTY_LIST : OP.EMPTY_SET);
        remember(container);
        out.byte(OP.MARK);
        for (const item of container.items) writeValue(item);
        out.byte(container.kind === 'list' ? OP.APPENDS : OP.ADDITEMS);
        break;
      case 'dict':
        if (container.ordered) {
          writeGlobal(ORDERED_DICT);
          out.byte(OP.EMPTY_TUPLE);
          out.byte(OP.REDUCE);
        } else out.byte(OP.EMPTY_DICT);
        remember(container);
        out.byte(OP.MARK);
        for (const [key, item] of container.entries) {
          writeValue(key);
          writeValue(item);
        }
        out.byte(OP.SETITEMS);
        writeState(container.state);
        break;
      case 'call':
      case 'object':
        writeGlobal(container.kind === 'call' ? container.callee.id : container.cls.id);
        writeTuple(container.args);
        out.byte(container.kind === 'call' ? OP.REDUCE : OP.NEWOBJ);
        remember(container);
        writeState(container.state);
        break;
      case 'opaque':
        writeValue(container.callee);
        writeTuple(container.args);
        out.byte(container.instance ? OP.NEWOBJ : OP.REDUCE);
        remember(container);
        writeState(container.state);
        break;
      case 'persistent':
        writeValue(container.id);
        out.byte(OP.BINPERSID);
        remember(container);
        break;
    }
  };
  const writeValue = (item: PickleValue): void => {
    if (item === null) out.byte(OP.NONE);
    else if (typeof item === 'boolean') out.byte(item ? OP.NEWTRUE : OP.NEWFALSE);
    else if (typeof item === 'bigint' || (Number.isSafeInteger(item) && !Object.is(item, -0)))
      writeInteger(item as number | bigint);
    else if (typeof item === 'number') {
      out.byte(OP.BINFLOAT);
      out.reserve(8).setFloat64(0, item, false);
    } else if (typeof item === 'string') {
      if (recall(`text ${item}`)) return;
      const bytes = new TextEncoder().encode(item);
      out.byte(OP.BINUNICODE);
      out.u32(bytes.byteLength);
      out.write(bytes);
      remember(`text ${item}`);
    } else if (isContainer(item)) {
      if (!recall(item)) writeContainer(item);
    } else {
      const long = item.byteLength > 0xffff_ffff;
      protocol = Math.max(protocol, long ? 4 : 3);
      out.byte(long ? OP.BINBYTES8 : OP.BINBYTES);
      if (long) out.u64(item.byteLength);
      else out.u32(item.byteLength);
      out.write(item);
    }
  };

  out.byte(OP.PROTO);
  out.byte(0);
  writeValue(value);
  out.byte(OP.STOP);
  const parts = out.done();
  parts[0]![1] = protocol;
  return parts;
}

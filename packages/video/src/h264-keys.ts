/** @file Whether an H.264 packet that the container calls a key packet is one: decoding can start at its picture. */

const IDR_SLICE = 5;
const SLICE = 1;
/** Bytes of a slice header that hold its first two numbers. */
const HEAD = 16;

/** Bytes of the length before each NAL unit (avcC); null: start codes. */
function lengthSizeOf(extradata: Uint8Array | null): number | null {
  return extradata && extradata.length >= 7 && extradata[0] === 1 ? (extradata[4]! & 3) + 1 : null;
}

function* unitsBehindLengths(packet: Uint8Array, lengthSize: number): Generator<Uint8Array> {
  for (let at = 0; at + lengthSize < packet.length; ) {
    let length = 0;
    for (let i = 0; i < lengthSize; i++) length = length * 256 + packet[at + i]!;
    at += lengthSize;
    yield packet.subarray(at, at + Math.min(length, HEAD));
    at += length;
  }
}

function* unitsBehindStartCodes(packet: Uint8Array): Generator<Uint8Array> {
  for (let at = 0; at + 3 < packet.length; at++)
    if (packet[at] === 0 && packet[at + 1] === 0 && packet[at + 2] === 1) {
      yield packet.subarray(at + 3, at + 3 + HEAD);
      at += 2;
    }
}

/** Exp-Golomb numbers of a unit behind its first byte, emulation prevention bytes left out. */
function golombReader(unit: Uint8Array): () => number {
  const bytes = unit
    .subarray(1)
    .filter((byte, i, all) => !(byte === 3 && i > 1 && all[i - 1] === 0 && all[i - 2] === 0));
  let position = 0;
  const bit = (): number => ((bytes[position >> 3] ?? 0xff) >> (7 - (position++ & 7))) & 1;
  return () => {
    let zeros = 0;
    while (zeros < 31 && bit() === 0) zeros++;
    let value = 1;
    for (let i = 0; i < zeros; i++) value = value * 2 + bit();
    return value - 1;
  };
}

/**
 * False where the first picture of the packet has a slice that is predicted from other pictures: x264's periodic intra refresh
 * marks such pictures as points of recovery, from which a whole picture comes only many frames later.
 */
export function startsWithIntraPicture(packet: Uint8Array, extradata: Uint8Array | null): boolean {
  const lengthSize = lengthSizeOf(extradata);
  const units = lengthSize === null ? unitsBehindStartCodes(packet) : unitsBehindLengths(packet, lengthSize);
  let slices = 0;
  for (const unit of units) {
    const type = (unit[0] ?? 0) & 31;
    if (type === IDR_SLICE) return true;
    if (type !== SLICE) continue;
    const next = golombReader(unit);
    const firstMacroblock = next();
    // The second field of a picture may be predicted from the first.
    if (slices > 0 && firstMacroblock === 0) return true;
    const sliceType = next() % 5;
    if (sliceType !== 2 && sliceType !== 4) return false;
    slices++;
  }
  return true;
}

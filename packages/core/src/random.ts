/**
 * @file Counter-based random numbers: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
 * A draw is a pure function of (key, counter), so results don't depend on batching, workers or order of arrival.
 */

/** What a stream of random numbers is for. Streams never overlap. */
export const STREAMS = { init: 0, shuffle: 1, sample: 2, synth: 3, permute: 4 } as const;
export type Stream = keyof typeof STREAMS;

const M0 = 0xd2511f53;
const M1 = 0xcd9e8d57;
const W0 = 0x9e3779b9;
const W1 = 0xbb67ae85;

/** High 32 bits of the 64-bit product of two unsigned 32-bit numbers. */
function mulHigh(a: number, b: number): number {
  const aLow = a & 0xffff;
  const aHigh = a >>> 16;
  const bLow = b & 0xffff;
  const bHigh = b >>> 16;
  const low = aLow * bLow;
  const mid1 = aHigh * bLow + (low >>> 16);
  const mid2 = aLow * bHigh + (mid1 & 0xffff);
  return (aHigh * bHigh + Math.floor(mid1 / 65536) + Math.floor(mid2 / 65536)) >>> 0;
}

/** Philox4x32-10: four 32-bit words from a 4-word counter and a 2-word key. */
export function philox4x32(
  counter: readonly [number, number, number, number],
  key: readonly [number, number],
): [number, number, number, number] {
  let [c0, c1, c2, c3] = counter;
  let [k0, k1] = key;
  for (let round = 0; round < 10; round++) {
    const high0 = mulHigh(M0, c0);
    const low0 = Math.imul(M0, c0) >>> 0;
    const high1 = mulHigh(M1, c2);
    const low1 = Math.imul(M1, c2) >>> 0;
    [c0, c1, c2, c3] = [(high1 ^ c1 ^ k0) >>> 0, low1, (high0 ^ c3 ^ k1) >>> 0, low0];
    k0 = (k0 + W0) >>> 0;
    k1 = (k1 + W1) >>> 0;
  }
  return [c0 >>> 0, c1 >>> 0, c2 >>> 0, c3 >>> 0];
}

export interface Rng {
  /** Uniform in [0, 1), 53 bits. */
  uniform(): number;
  /** Uniform integer in [0, n). */
  below(n: number): number;
  /** Standard normal (Box-Muller). */
  normal(): number;
  /** A new shuffled array (Fisher-Yates). */
  shuffled<T>(items: readonly T[]): T[];
  /** One of the items. */
  pick<T>(items: readonly T[]): T;
}

/**
 * The generator of one counter prefix: (step, row, turn) are fixed, the last counter word counts draws.
 * seed: integer in [0, 2^32).
 */
export function createRng(seed: number, stream: Stream, step = 0, row = 0, turn = 0): Rng {
  const key = [seed >>> 0, STREAMS[stream]] as const;
  let draw = 0;
  let block: [number, number, number, number] = [0, 0, 0, 0];
  let left = 0;
  const word = (): number => {
    if (left === 0) {
      block = philox4x32([step >>> 0, row >>> 0, turn >>> 0, draw++ >>> 0], key);
      left = 4;
    }
    return block[4 - left--] as number;
  };
  const uniform = (): number => ((word() >>> 5) * 67108864 + (word() >>> 6)) / 9007199254740992;
  const below = (n: number): number => Math.floor(uniform() * n);
  return {
    uniform,
    below,
    normal: () => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform()),
    shuffled: (items) => {
      const out = [...items];
      for (let i = out.length - 1; i > 0; i--) {
        const j = below(i + 1);
        [out[i], out[j]] = [out[j]!, out[i]!];
      }
      return out;
    },
    pick: (items) => items[below(items.length)]!,
  };
}

/** The one uniform number of a sampled token: counter (step, row, turn, token). */
export function tokenUniform(seed: number, step: number, row: number, turn: number, token: number): number {
  const [a, b] = philox4x32([step >>> 0, row >>> 0, turn >>> 0, token >>> 0], [seed >>> 0, STREAMS.sample]);
  return ((a >>> 5) * 67108864 + (b >>> 6)) / 9007199254740992;
}

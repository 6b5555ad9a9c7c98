/** @file Cuts work into parts of about equal size: sequences over workers and micro-batches. */
import { AlgorithmError } from './error.ts';
import { sumOf } from './rows.ts';

/** Cost of a row of s tokens: 24576 s + s² (linear layers and attention of a 7 B model). */
export function workloadOf(tokens: number): number {
  return 24576 * tokens + tokens * tokens;
}

interface Part {
  sum: number;
  items: [index: number, size: number][];
}
/** k parts, largest first. */
type State = Part[];

/** Order of parts: by sum, then by number of items, then by the items. */
function compareParts(a: Part, b: Part): number {
  if (a.sum !== b.sum) return a.sum - b.sum;
  if (a.items.length !== b.items.length) return a.items.length - b.items.length;
  for (const [i, [index, size]] of a.items.entries()) {
    const [otherIndex, otherSize] = b.items[i]!;
    if (index !== otherIndex) return index - otherIndex;
    if (size !== otherSize) return size - otherSize;
  }
  return 0;
}
const descending = (a: Part, b: Part): number => compareParts(b, a);
const spread = (state: State): number => state[0]!.sum - state.at(-1)!.sum;

/** Comes `a` out of the heap before `b`? The larger spread does, on a tie the one with the larger largest part. */
function before(a: State, b: State): boolean {
  const [x, y] = [spread(a), spread(b)];
  return x !== y ? x > y : compareParts(a[0]!, b[0]!) > 0;
}

/** A binary heap with Python heapq's sift order, on which the result depends where states tie. */
class Heap {
  readonly #items: State[] = [];
  get size(): number {
    return this.#items.length;
  }
  push(state: State): void {
    this.#items.push(state);
    this.#up(0, this.#items.length - 1);
  }
  pop(): State {
    const last = this.#items.pop()!;
    if (this.#items.length === 0) return last;
    const first = this.#items[0]!;
    this.#items[0] = last;
    this.#down(0);
    return first;
  }
  #up(start: number, from: number): void {
    const items = this.#items;
    const moved = items[from]!;
    let at = from;
    while (at > start) {
      const parent = (at - 1) >> 1;
      if (!before(moved, items[parent]!)) break;
      items[at] = items[parent]!;
      at = parent;
    }
    items[at] = moved;
  }
  #down(start: number): void {
    const items = this.#items;
    const moved = items[start]!;
    let at = start;
    for (let child = 2 * at + 1; child < items.length; child = 2 * at + 1) {
      if (child + 1 < items.length && !before(items[child]!, items[child + 1]!)) child++;
      items[at] = items[child]!;
      at = child;
    }
    items[at] = moved;
    this.#up(start, at);
  }
}

function checkEqual(parts: readonly (readonly number[])[], count: number): void {
  for (const part of parts)
    if (part.length * parts.length !== count)
      throw new AlgorithmError(`partition of ${count} rows into ${parts.length} equal parts: one got ${part.length}`);
}

/**
 * The largest differencing method: merges the two states that are most uneven, the largest part of one with the smallest of the
 * other, until one is left. Parts in descending order.
 * @param equalSize all parts have the same number of items
 * @throws AlgorithmError when equalSize and k does not divide the number of items
 */
export function karmarkarKarp(sizes: readonly number[], k: number, equalSize: boolean): number[][] {
  const items = sizes.map((size, index): [number, number] => [index, size]).sort((a, b) => a[1] - b[1] || a[0] - b[0]);
  if (equalSize && items.length % k !== 0)
    throw new AlgorithmError(`partition of ${items.length} rows into ${k} equal parts: ${k} does not divide it`);
  const heap = new Heap();
  const step = equalSize ? k : 1;
  for (let at = 0; at < items.length; at += step) {
    const state = Array.from({ length: k }, (_, i): Part => {
      const item = i < step ? items[at + i] : undefined;
      return item ? { sum: item[1], items: [item] } : { sum: 0, items: [] };
    });
    heap.push(state.sort(descending));
  }
  if (heap.size === 0) return Array.from({ length: k }, () => []);
  while (heap.size > 1) {
    const [kept, merged] = [heap.pop(), heap.pop()];
    const state = kept.map((part, i): Part => {
      const other = merged[k - 1 - i]!;
      return { sum: part.sum + other.sum, items: [...part.items, ...other.items] };
    });
    heap.push(state.sort(descending));
  }
  const parts = heap.pop().map((part) => part.items.map(([index]) => index));
  if (equalSize) checkEqual(parts, sizes.length);
  return parts;
}

/**
 * karmarkarKarp with sorted parts, none of them empty.
 * @throws AlgorithmError when there are fewer items than parts, or a part stays empty
 */
export function balancedPartitions(sizes: readonly number[], k: number, equalSize: boolean): number[][] {
  if (sizes.length < k) throw new AlgorithmError(`partition of ${sizes.length} rows into ${k} parts: too few rows`);
  const parts = karmarkarKarp(sizes, k, equalSize);
  const empty = parts.findIndex((part) => part.length === 0);
  if (empty >= 0) throw new AlgorithmError(`partition of ${sizes.length} rows into ${k} parts: part ${empty} is empty`);
  return parts.map((part) => part.sort((a, b) => a - b));
}

/** Each item in turn to the part with the smallest sum, the first of those that tie. */
export function greedyPartition(sizes: readonly number[], k: number, equalSize: boolean): number[][] {
  const bias = equalSize ? sumOf(sizes) + 1 : 0;
  const parts: number[][] = Array.from({ length: k }, () => []);
  const sums = new Array<number>(k).fill(0);
  for (const [i, size] of sizes.entries()) {
    const at = sums.indexOf(Math.min(...sums));
    parts[at]!.push(i);
    sums[at]! += size + bias;
  }
  if (equalSize) checkEqual(parts, sizes.length);
  return parts;
}

/**
 * Partitions that keep the rows of a group together: runs of one uid are groups, as many in each part.
 * @throws AlgorithmError when there are fewer groups than parts
 */
export function groupBalancedPartitions(tokens: readonly number[], uids: readonly string[], k: number): number[][] {
  if (tokens.length !== uids.length)
    throw new AlgorithmError(`partition by group: ${tokens.length} lengths, ${uids.length} uids`);
  const groups: number[][] = [];
  for (const [i, uid] of uids.entries()) {
    if (i > 0 && uids[i - 1] === uid) groups.at(-1)!.push(i);
    else groups.push([i]);
  }
  const workloads = groups.map((rows) => sumOf(rows.map((i) => workloadOf(tokens[i]!))));
  return balancedPartitions(workloads, k, true).map((part) => part.flatMap((g) => groups[g]!).sort((a, b) => a - b));
}

/**
 * Micro-batches of about equal work, as many as fit maxTokenLen tokens each on average (one may have more).
 * @throws AlgorithmError when a row, or the count asked for, does not fit
 */
export function microBatches(
  tokens: readonly number[],
  {
    maxTokenLen,
    minNumMicroBatch = 1,
    numBatchesDividedBy = 1,
    useDynamicBszBalance = true,
  }: {
    maxTokenLen: number;
    minNumMicroBatch?: number;
    numBatchesDividedBy?: number;
    /** Order the micro-batches small, …, large, …, small instead of descending. Default true. */
    useDynamicBszBalance?: boolean;
  },
): number[][] {
  const longest = Math.max(...tokens);
  if (maxTokenLen < longest)
    throw new AlgorithmError(
      `micro-batches of ${maxTokenLen} tokens: a row has ${longest}, raise max_token_len_per_gpu`,
    );
  const needed = Math.max(minNumMicroBatch, Math.min(tokens.length, Math.ceil(sumOf(tokens) / maxTokenLen)));
  const count = Math.ceil(needed / numBatchesDividedBy) * numBatchesDividedBy;
  if (count > tokens.length) throw new AlgorithmError(`${count} micro-batches: there are only ${tokens.length} rows`);
  const workloads = tokens.map(workloadOf);
  const parts = balancedPartitions(workloads, count, false);
  if (!useDynamicBszBalance) return parts;
  const work = new Map(parts.map((part) => [part, sumOf(part.map((i) => workloads[i]!))]));
  parts.sort((a, b) => work.get(b)! - work.get(a)! || b[0]! - a[0]!);
  return [...parts.filter((_, i) => i % 2 === 0).reverse(), ...parts.filter((_, i) => i % 2 === 1)];
}

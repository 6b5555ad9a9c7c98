/** @file Joins the cotangents of slices of one value into one tensor, with as little padding and adding as there can be. */
import type { GraphBuilder } from './builder.ts';
import type { Value } from './types.ts';
import type { SliceCotangent } from './vjp/rule.ts';

/** Zero-pads a piece to [start, end). */
function widened(g: GraphBuilder, piece: SliceCotangent, start: number, end: number): Value {
  const [before, after] = [piece.start - start, end - piece.end];
  return before === 0 && after === 0 ? piece.part : g.pad(piece.part, piece.axis, before, after);
}

/** Adds pieces that overlap, until none do: the shorter is padded to the other's range (or both to their hull). */
function disjoint(g: GraphBuilder, pieces: readonly SliceCotangent[]): SliceCotangent[] {
  const merged = (a: SliceCotangent, b: SliceCotangent): SliceCotangent => {
    const [start, end] = [Math.min(a.start, b.start), Math.max(a.end, b.end)];
    return { axis: a.axis, start, end, part: g.add(widened(g, a, start, end), widened(g, b, start, end)) };
  };
  const length = (piece: SliceCotangent) => piece.end - piece.start;
  // Shortest first, into the shortest range that holds it: a chain of nested prefixes costs the sum of their lengths.
  const waiting = [...pieces].sort((a, b) => length(a) - length(b) || a.start - b.start);
  const tops: SliceCotangent[] = [];
  while (waiting.length > 0) {
    const piece = waiting.shift()!;
    const holder = waiting.findIndex((other) => other.start <= piece.start && piece.end <= other.end);
    if (holder < 0) tops.push(piece);
    else waiting[holder] = merged(piece, waiting[holder]!);
  }
  tops.sort((a, b) => a.start - b.start);
  const apart: SliceCotangent[] = [];
  for (const piece of tops) {
    const last = apart.at(-1);
    if (last && piece.start < last.end) apart[apart.length - 1] = merged(last, piece);
    else apart.push(piece);
  }
  return apart;
}

/** The cotangent of the whole value from cotangents of its slices along one axis of `size`. Pieces that tile it become one concat. */
export function joinSlices(g: GraphBuilder, pieces: readonly SliceCotangent[], size: number): Value {
  const apart = disjoint(g, pieces);
  const { axis } = apart[0]!;
  // Each piece takes the gap before it, the last one also the gap after it.
  const parts = apart.map((piece, i) =>
    widened(g, piece, i === 0 ? 0 : apart[i - 1]!.end, i === apart.length - 1 ? size : piece.end),
  );
  return parts.length === 1 ? parts[0]! : g.concat(parts, axis);
}

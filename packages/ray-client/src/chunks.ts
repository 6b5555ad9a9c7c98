/** @file Large messages travel in chunks. */

/** Bytes of one chunk: Ray's own client's. */
const CHUNK_BYTES = 5 * 2 ** 20;

export const bytesOf = (parts: readonly Uint8Array[]): number => parts.reduce((sum, part) => sum + part.byteLength, 0);

/** How many chunks the parts, put together, are cut into. */
export const countChunks = (parts: readonly Uint8Array[]): number =>
  Math.max(1, Math.ceil(bytesOf(parts) / CHUNK_BYTES));

/** Cuts parts, put together, into chunks; copies only where a chunk lies across parts. */
export function* cutChunks(parts: readonly Uint8Array[]): Generator<Uint8Array> {
  let [collected, bytes]: [Uint8Array[], number] = [[], 0];
  for (const part of parts) {
    for (let at = 0; at < part.byteLength; ) {
      const piece = part.subarray(at, at + CHUNK_BYTES - bytes);
      collected.push(piece);
      bytes += piece.byteLength;
      at += piece.byteLength;
      if (bytes < CHUNK_BYTES) continue;
      yield collected.length === 1 ? piece : Buffer.concat(collected);
      [collected, bytes] = [[], 0];
    }
  }
  if (bytes > 0) yield collected.length === 1 ? collected[0]! : Buffer.concat(collected);
}

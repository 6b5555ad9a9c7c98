/** @file The memory in which pieces of tensors are read, joined, converted and compared; a thread never holds more than the limit. */
import { InvariantError } from '@frame-thinker/core';

/** Bytes of tensors that a thread may hold at once, whatever the size of the model and of its largest tensor. */
export const PIECE_LIMIT = 16e6;
/** The size that most steps ask for; such buffers are lent again. */
export const PIECE_BLOCK = 1 << 20;

const free: Uint8Array[] = [];
let held = 0;
let peak = 0;

/** Counts bytes as held, also those that are kept elsewhere. @throws InvariantError above the limit. */
export function holdPieceBytes(bytes: number): void {
  held += bytes;
  peak = Math.max(peak, held);
  if (held <= PIECE_LIMIT) return;
  const wanted = held;
  held -= bytes;
  throw new InvariantError(`${wanted} bytes of tensors are held at once, more than ${PIECE_LIMIT}`);
}

export function releasePieceBytes(bytes: number): void {
  held -= bytes;
}

/**
 * Lends a buffer of at least so many bytes while `use` runs, its content left over. Tensors are nested, so each level needs
 * its own, and none must be made for each step.
 */
export function withPiece<T>(bytes: number, use: (piece: Uint8Array) => T): T {
  const size = Math.max(PIECE_BLOCK, bytes);
  holdPieceBytes(size);
  const piece = (size === PIECE_BLOCK && free.pop()) || new Uint8Array(size);
  try {
    return use(piece);
  } finally {
    if (size === PIECE_BLOCK) free.push(piece);
    releasePieceBytes(size);
  }
}

/** Bytes that are held now, and the most that were since the last call. */
export function pieceMemory(): { held: number; peak: number } {
  const found = { held, peak };
  peak = held;
  return found;
}

/** @file What both rewards read from a text, with the original's regular expressions. */
import { pythonInt, pythonRegExp } from '@frame-thinker/core';

/** A range of frames as asked for: integers of any size. */
export type Range = readonly [bigint, bigint];

/** Free-standing integers: at Unicode word boundaries, not next to a ':' (so no part of a clock time). */
const FREE_INTEGER = pythonRegExp('(?<!:)\\b\\d+\\b(?!:)', 'g');

/** The last two free-standing integers of a think, as digits; undefined when there are fewer. */
export function lastTwoIntegers(think: string): readonly [string, string] | undefined {
  const found = think.match(FREE_INTEGER) ?? [];
  const [a, b] = found.slice(-2);
  return a !== undefined && b !== undefined ? [a, b] : undefined;
}

/** (a, b) that is within an earlier range by exactly one frame on each side. */
export function isShrunk([a, b]: Range, [x, y]: Range): boolean {
  return a === x + 1n && b === y - 1n;
}

export function isSame([a, b]: Range, [x, y]: Range): boolean {
  return a === x && b === y;
}

// M:SS to MMM:SS, or H:MM:SS; no part of a longer number.
const CLOCK = pythonRegExp('(?<!\\d|:)(?:(\\d+):(?=\\d\\d:))?(\\d{1,3}):(\\d\\d)(?!\\d|:)', 'g');

/** The clock times of a question, in seconds: M:SS with SS < 60, or H:MM:SS. A score such as 2:1 or a ratio such as 16:9 is none. */
export function clockTimes(question: string): Set<number> {
  const times = new Set<number>();
  for (const [, hours, minutes, seconds] of question.matchAll(CLOCK)) {
    const [h, m, s] = [hours ?? '0', minutes!, seconds!].map((digits) => Number(pythonInt(digits)));
    if (s! < 60 && (hours === undefined || m! < 60)) times.add(3600 * h! + 60 * m! + s!);
  }
  return times;
}

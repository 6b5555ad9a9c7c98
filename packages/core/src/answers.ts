/** @file Answers in one form, so that reward and evaluation agree. */
import { pythonStrip } from './python-text.ts';

const OPENING = /^[\s([{<"'*`“‘]+/u;
// The lookbehind keeps long inner runs linear.
const CLOSING = /(?<![\s)\]}>"'*`”’.,;:!?])[\s)\]}>"'*`”’.,;:!?]+$/u;

/** "C.", "(C)", " c " → "C": brackets, quotes and end punctuation around the answer go, white space is single, case is folded. */
export function normalizeAnswer(answer: string): string {
  return pythonStrip(answer).replace(OPENING, '').replace(CLOSING, '').replace(/\s+/gu, ' ').toUpperCase();
}

/** Whether the answer is right, both sides normalised. An empty ground truth is never matched. */
export function verdict(answer: string, groundTruth: string): boolean {
  const truth = normalizeAnswer(groundTruth);
  return truth !== '' && normalizeAnswer(answer) === truth;
}

/** @file Majority votes. */
import { AlgorithmError } from '../error.ts';

/** The value of the first sample whose vote is the most frequent; the vote seen first wins a tie. */
export function majorityValue(samples: readonly { vote: string | number; value: number }[]): number {
  const counts = new Map<string | number, { count: number; value: number }>();
  for (const { vote, value } of samples) {
    const known = counts.get(vote);
    if (known) known.count++;
    else counts.set(vote, { count: 1, value });
  }
  const [first, ...rest] = counts.values();
  if (!first) throw new AlgorithmError('majority vote: no sample');
  return rest.reduce((best, one) => (one.count > best.count ? one : best), first).value;
}

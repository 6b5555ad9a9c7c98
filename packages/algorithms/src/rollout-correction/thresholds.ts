/** @file Thresholds as verl writes them: a number, or `lower_upper`. */
import { AlgorithmError } from '../error.ts';

export interface Bounds {
  lower: number | undefined;
  upper: number;
}

/** Reads `1.5` or `0.6_1.5`. */
export function parseBounds(name: string, spec: string | number): Bounds {
  const parts = `${spec}`.trim().split('_');
  const numbers = parts.map((part) => (part.trim() === '' ? Number.NaN : Number(part)));
  if (numbers.length > 2 || numbers.some((x) => !(x > 0)))
    throw new AlgorithmError(`${name} ${spec}: must be a positive number, or two as lower_upper`);
  const [lower, upper] = numbers.length === 2 ? [numbers[0], numbers[1]!] : [undefined, numbers[0]!];
  if (lower !== undefined && lower > upper)
    throw new AlgorithmError(`${name} ${spec}: the lower bound is above the upper`);
  return { lower, upper };
}

/** One threshold for each option, comma separated, or one for all. */
export function parseList(name: string, options: readonly string[], spec: string | number): (string | number)[] {
  const specs = `${spec}`
    .split(',')
    .map((part) => part.trim())
    .filter((part) => part !== '');
  if (specs.length === 1) return options.map(() => specs[0]!);
  if (specs.length !== options.length)
    throw new AlgorithmError(`${name} ${spec}: gives ${specs.length} thresholds for ${options.length} options`);
  return specs;
}

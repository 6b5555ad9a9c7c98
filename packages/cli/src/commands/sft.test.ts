import { describe, expect, it } from 'vitest';
import { run } from '../run.ts';
import { sft } from './sft.ts';

describe('pnpm sft', () => {
  it.each([
    [['--kinds', 'colour,taste'], /--kinds colour,taste: "taste" is none of colour, shape, place/],
    [['--steps', '0'], /--steps 0: expected a whole number of at least 1/],
    [['--lr', '1'], /--lr goes with --dataset/],
    [['--model', 'nowhere/base'], /nowhere\/base: no model here \(config.json is missing\)/],
  ])('%j is bad input', async (flags, message) => {
    const errors: string[] = [];
    expect(await run(['sft', ...flags], { commands: [sft], out: () => {}, err: (line) => errors.push(line) })).toBe(2);
    expect(errors.join('\n')).toMatch(message);
  });
});

import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { compare, describeResult, jsonLine, median, pairedRounds } from './bench-result.ts';

describe('bench results', () => {
  it('alternates who begins, and takes the median of the rounds', async () => {
    const order: string[] = [];
    const times = [3, 1, 8];
    const { ours, peer } = await pairedRounds({
      rounds: 3,
      ours: async () => {
        order.push('ours');
        return times.shift() as number;
      },
      peer: async () => {
        order.push('peer');
        return 4;
      },
    });
    expect(order).toEqual(['ours', 'peer', 'peer', 'ours', 'ours', 'peer']);
    const result = compare({ bench: 'b', case: 'c', higher_is_better: false, goal: 0.5, load: 1, ours, peer });
    expect(result).toMatchObject({ ratio: 0.75, ours: 3, peer: 4, rounds: 3 });
    expect(describeResult(result)).toContain('NOT reached');
    expect(Object.keys(JSON.parse(jsonLine(result)))).toEqual(
      'bench case ratio higher_is_better goal rounds ours peer load'.split(' '),
    );
    expect(median([1, 2, 10, 3])).toBe(2.5);
  });

  it('refuses an unknown bench and an unknown option in one line', () => {
    const root = join(import.meta.dirname, '..');
    for (const args of [['nope'], ['engine', '--treads', '2'], []]) {
      const { status, stdout, stderr } = spawnSync('node_modules/.bin/tsx', ['scripts/bench.ts', ...args], {
        cwd: root,
        encoding: 'utf8',
      });
      expect([status, stdout, stderr.trimEnd().split('\n').length]).toEqual([2, '', 1]);
    }
  });
});

import { describe, expect, it } from 'vitest';
import type { WorkerConnection } from './transport.ts';
import { watch } from './watchdog.ts';

/** A worker whose call was quiet for so long at each look. */
function looked(quiet: readonly (number | undefined)[]): { said: string[]; killed: string[] } {
  const [said, killed]: string[][] = [[], []];
  const looks = new WeakMap<WorkerConnection, number>();
  let now: number | undefined;
  const worker = {
    ...{ name: 'worker 0', where: 'pid 7' },
    oldestCall: () => (now === undefined ? undefined : { method: 'rollout', ms: now, quietMs: now }),
    kill: async (reason: string) => void killed!.push(reason),
  } as Partial<WorkerConnection> as WorkerConnection;
  for (now of quiet) watch([worker], { quietMs: 10, hungMs: 50, warn: (line) => said!.push(line) }, looks);
  return { said: said!, killed: killed! };
}

describe('the watchdog', () => {
  it('names a quiet worker at each look, and ends it in the end', () => {
    const { said, killed } = looked([undefined, 5, 15, 25, 35, 45, 55]);
    expect(said).toHaveLength(5);
    expect(said[0]).toBe('worker 0 (pid 7) has been in rollout for 0 s');
    expect(said.at(-1)).toMatch(/: it is ended$/);
    expect(killed).toEqual(['hung']);
  });

  it('does not take a pause of its own for a hang', () => {
    expect(looked([undefined, 3_600_000]).killed).toEqual([]);
    expect(looked([3_600_000, 5, 15, 25]).killed).toEqual([]);
    expect(looked([3_600_000, 3_600_010, 3_600_020, 3_600_030]).killed).toEqual(['hung']);
  });
});

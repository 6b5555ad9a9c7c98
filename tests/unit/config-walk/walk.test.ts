/** @file Goes through the schema: every key acts and is probed, or is accepted without effect or refused, with a reason. */
import { isDeepStrictEqual } from 'node:util';
import { type KeyInfo, keysOf, loadConfig, trainSchema } from '@frame-thinker/config';
import { describe, expect, it } from 'vitest';
import { RUN, trainingRun } from './observers.ts';
import { item, observed, tellsApart } from './probe.ts';
import { PROBES } from './probes.ts';
import { ROLLED, sharedRun, workerRun } from './worker-run.ts';

const keys = keysOf(trainSchema);
const probed = new Set(PROBES.map(({ key }) => key));
/** Only one value passes: there is nothing to tell apart. */
const single = ({ supported }: KeyInfo): boolean => supported !== undefined && supported.length < 2;

/** Well-formed values of whatever type a key has. */
const CANDIDATES: readonly unknown[] = [
  true,
  false,
  2,
  0.25,
  'text',
  'fsdp2',
  'sglang',
  'async',
  'gpu',
  'node',
  'tfjs',
  'ray',
  { a: 1 },
];
/** A value that is not the default and that the schema takes; what loading it says. */
function another({ key, default: usual }: KeyInfo): { value: unknown; complaint: string } | undefined {
  for (const value of CANDIDATES) {
    if (isDeepStrictEqual(value, usual)) continue;
    try {
      const loaded = loadConfig({ overrides: [item(key, value)] });
      const listed = loaded.withoutEffect.find((one) => one.key === key);
      return { value, complaint: listed?.reason ?? '' };
    } catch (error) {
      const { message } = error as Error;
      if (/ is refused: /.test(message)) return { value, complaint: message };
    }
  }
  return undefined;
}

describe('every key', () => {
  it('that acts has a probe', () => {
    const acting = keys.filter((info) => info.effect === 'acts' && !single(info)).map(({ key }) => key);
    expect(acting.filter((key) => !probed.has(key))).toEqual([]);
    expect([...probed].filter((key) => !acting.includes(key))).toEqual([]);
  });

  it('that is accepted without effect takes another value and says why it does nothing', () => {
    const silent = keys.filter(({ effect }) => effect === 'without-effect');
    console.log(`accepted without effect: ${silent.length} of ${keys.length} keys`);
    for (const info of silent) {
      console.log(`  ${info.key}: ${info.reason}`);
      expect({ key: info.key, complaint: another(info)?.complaint }).toEqual({ key: info.key, complaint: info.reason });
    }
  });

  it('that passes only its neutral value refuses others with the reason', () => {
    const refusing = keys.filter((info) => info.effect === 'refused' || (info.effect === 'acts' && single(info)));
    console.log(`refused but for the neutral value: ${refusing.length} of ${keys.length} keys`);
    for (const info of refusing) {
      console.log(`  ${info.key}: ${info.reason}`);
      expect({ key: info.key, complaint: another(info)?.complaint }).toEqual({
        key: info.key,
        complaint: expect.stringContaining(info.reason!),
      });
    }
  });
});

describe('a probe', () => {
  it('sees nothing where a key is ignored, and the same twice', async () => {
    const run = await observed(trainingRun, RUN);
    expect(await observed(trainingRun, RUN, { again: true })).toEqual(run);
    expect(run).toMatchObject({ outcome: { code: 0 } });
    const ignored = { key: 'trainer.device', values: ['cuda', 'npu'] as const, with: RUN, observe: trainingRun };
    expect(await tellsApart(ignored)).toBe(false);
    const episodes = await observed(workerRun, ROLLED);
    expect(await observed(workerRun, ROLLED, { again: true })).toEqual(episodes);
    expect(JSON.stringify(episodes)).toContain('is: 319. (the video ends at frame 319)');
    expect(await tellsApart({ ...ignored, with: ROLLED, observe: workerRun })).toBe(false);
  });

  it('of the number of workers counts processes', async () => {
    const shared = [...ROLLED, 'actor_rollout_ref.rollout.slots=1'];
    expect(await observed(sharedRun, shared)).toEqual([2]);
    expect(await observed(sharedRun, [...shared, 'trainer.nnodes=2'])).toEqual([1, 1]);
  });

  it('leaves its key to the code that it looks at', () => {
    const reads = PROBES.filter(({ key, observe }) =>
      new RegExp(`\\bconfig(?:\\.\\w+)*\\.${key.split('.').at(-1)}\\b`).test(observe.toString()),
    );
    expect(reads.map(({ key }) => key)).toEqual([]);
  });

  it.each(PROBES.map((probe) => [probe.key, probe] as const))('%s', async (_, probe) => {
    expect(await tellsApart(probe)).toBe(true);
  });
});

/** @file SIGKILL from outside, in each phase: what is resumed is the undisturbed run, and no process is left behind. */
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createRng } from '@frame-thinker/core';
import { afterAll, describe, expect, inject, it } from 'vitest';
import { runCommand } from '../e2e/processes.ts';
import {
  contentOf,
  eventsOf,
  jsonLines,
  killRun,
  metricsOf,
  namedStep,
  reached,
  SAVE_MOMENTS,
  STEPS,
  start,
  survivors,
  trainWords,
  until,
  untilPhase,
} from './training-run.ts';

const runs = mkdtempSync(join(tmpdir(), 'ft-killed-'));
afterAll(() => rmSync(runs, { recursive: true, force: true }));
const undisturbed = inject('undisturbed');
const whole = contentOf(undisturbed);

/** A seeded time within a phase: at most a third of what it took undisturbed. */
function waitWithin(rng: ReturnType<typeof createRng>, { step, phase }: { step: number; phase: string }) {
  const timings = jsonLines<Record<string, number>>(join(undisturbed, 'metrics.jsonl'));
  const ms = (rng.uniform() * timings[step - 1]![`timing_s/${phase}`]! * 1000) / 3;
  return new Promise((resolve) => setTimeout(resolve, ms));
}

describe('a run killed again and again', () => {
  const dir = join(runs, 'killed');
  const rng = createRng(20_261, 'permute');
  const inRollout = { step: 1 + rng.below(2), phase: 'gen' };
  const inUpdate = { step: inRollout.step + rng.below(2), phase: 'update_actor' };
  const inSave = { step: inUpdate.step + rng.below(STEPS - inUpdate.step), phase: 'save_checkpoint' };
  const moment = rng.pick(SAVE_MOMENTS.slice(0, 4));

  /** Starts or resumes the run, kills it when `ready`, and checks what it leaves. */
  async function kill(at: { step: number; phase: string }, ready: (run: ReturnType<typeof start>) => Promise<unknown>) {
    const before = namedStep(dir);
    const run = start(trainWords(dir));
    await untilPhase(run, dir, at);
    await ready(run);
    const family = await killRun(run);
    expect(
      eventsOf(dir)
        .filter(({ kind }) => kind !== 'checkpoint')
        .at(-1),
    ).toMatchObject(at);
    expect(family.length).toBeGreaterThan(1);
    expect(await survivors(family, 10_000)).toEqual([]);
    if (before > 0) expect(run.lines.join('\n')).toContain(`global_step_${before} (step ${before} of`);
    const { checkpoints } = contentOf(dir);
    expect(whole.checkpoints).toMatchObject(checkpoints);
    return Object.keys(checkpoints).map(Number);
  }

  it(`in the rollout of step ${inRollout.step}`, async () => {
    const saved = await kill(inRollout, () => waitWithin(rng, inRollout));
    expect(saved.length).toBe(inRollout.step - 1);
  });

  it(`in the update of step ${inUpdate.step}`, async () => {
    const saved = await kill(inUpdate, () => waitWithin(rng, inUpdate));
    expect(saved.length).toBe(inUpdate.step - 1);
  });

  it(`while step ${inSave.step} is saved, when its ${moment} is there`, async () => {
    const saved = await kill(inSave, (run) => until(run, () => reached(dir, inSave.step, moment), 0));
    expect(saved.length).toBe(inSave.step - 1);
    // Its metrics were there before.
    expect(metricsOf(dir).map(({ step }) => step)).toContain(inSave.step);
    expect(readdirSync(dir).filter((name) => name.endsWith('.tmp'))).toHaveLength(1);
  });

  it('when the last checkpoint has its place, and is named or not', async () => {
    const last = { step: STEPS, phase: 'save_checkpoint' };
    await kill(last, (run) => until(run, () => reached(dir, STEPS, 'renamed'), 0));
  });

  it('is the undisturbed run: weights, moments, sampler position, metrics and trajectories', async () => {
    const { code, lines } = await runCommand(trainWords(dir));
    expect(code).toBe(0);
    expect(lines.join('\n')).toMatch(/already complete|training is complete/);
    expect(contentOf(dir)).toEqual(whole);
    expect(readdirSync(dir).filter((name) => /\.(tmp|replaced)$/.test(name))).toEqual([]);
  });
});

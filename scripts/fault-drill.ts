/**
 * @file Kills a training run at random moments and looks at what is resumed:
 *
 *     pnpm exec tsx scripts/fault-drill.ts --n 20 --seed 1
 *
 * Each round starts the smallest configuration anew, ends it with SIGKILL at a seeded moment between its start and its end,
 * (placed by the run's own events, so that a slower machine only stretches it), starts the same command again, and compares weights, moments, sampler position, metrics and trajectories with those of a run
 * that nothing disturbed. Prints one line a round; exit code 1 when one differs or leaves a process behind.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { isDeepStrictEqual, parseArgs } from 'node:util';
import { createRng } from '@frame-thinker/core';
import { runCommand, start } from '../tests/e2e/processes.ts';
import {
  contentOf,
  eventsOf,
  killRun,
  namedStep,
  STEPS,
  survivors,
  trainWords,
  until,
} from '../tests/faults/training-run.ts';

type Content = ReturnType<typeof contentOf>;

/** What the run was doing, by the last thing that it reported. */
function doing(dir: string): string {
  const last = eventsOf(dir).at(-1);
  if (!last || last.kind === 'start') return 'start-up';
  return last.kind === 'checkpoint' ? `after save, step ${last.step}` : `${last.phase}, step ${last.step}`;
}

/** Names of the parts in which two runs differ. */
function differences(found: Content, whole: Content): string[] {
  const hashes = (content: Content, part: RegExp) =>
    Object.entries(content.checkpoints[STEPS] ?? {}).filter(([name]) => part.test(name));
  const parts: [string, (content: Content) => unknown][] = [
    ['weights', (content) => hashes(content, /model_world/)],
    ['moments', (content) => hashes(content, /optim_world/)],
    ['counters', (content) => hashes(content, /extra_state/)],
    ['sampler position', (content) => hashes(content, /data\.json/)],
    ['earlier checkpoints', (content) => content.checkpoints],
    ['metrics', (content) => content.metrics],
    ['trajectories', (content) => content.trajectories],
  ];
  return parts.flatMap(([name, of]) => (isDeepStrictEqual(of(found), of(whole)) ? [] : [name]));
}

const { values } = parseArgs({ options: { n: { type: 'string' }, seed: { type: 'string' } } });
const [rounds, seed] = [Number(values.n ?? 20), Number(values.seed ?? 1)];
if (!Number.isInteger(rounds) || rounds < 1 || !Number.isInteger(seed) || seed < 0) {
  console.error('fault-drill: --n and --seed take whole numbers, e.g. --n 20 --seed 1');
  process.exit(2);
}

const folder = mkdtempSync(join(tmpdir(), 'ft-drill-'));
let bad = 0;
try {
  const began = Date.now();
  const undisturbed = await runCommand(trainWords(join(folder, 'undisturbed')));
  if (undisturbed.code !== 0) throw new Error(undisturbed.lines.slice(-20).join('\n'));
  const span = Date.now() - began;
  const marks = eventsOf(join(folder, 'undisturbed')).map((event) => ({
    ...event,
    at: Date.parse(event.time) - began,
  }));
  const whole = contentOf(join(folder, 'undisturbed'));
  const rng = createRng(seed, 'permute');
  console.log(`undisturbed run: ${STEPS} steps, ${(span / 1000).toFixed(1)} s; ${rounds} rounds, seed ${seed}\n`);
  console.log(
    '| round | killed at | while in | resumed from step | processes left | differs from the undisturbed run in |',
  );
  console.log('|--:|--:|---|--:|--:|---|');
  for (let round = 1; round <= rounds; round++) {
    const dir = join(folder, `round-${round}`);
    const ms = rng.uniform() * span;
    const passed = marks.filter(({ at }) => at <= ms).length;
    const since = performance.now();
    const run = start(trainWords(dir));
    await until(run, () => eventsOf(dir).length >= passed);
    const mark = marks[passed - 1]?.at ?? 0;
    // Time goes as fast as it did up to this event.
    const pace = mark > 0 ? (performance.now() - since) / mark : 1;
    await Promise.race([new Promise((resolve) => setTimeout(resolve, (ms - mark) * pace)), run.ended]);
    const over = run.child.exitCode !== null;
    const left = over ? [] : await survivors(await killRun(run), 10_000);
    const [where, from] = [over ? 'after its end' : doing(dir), namedStep(dir)];
    const { code } = await runCommand(trainWords(dir));
    const differs = code === 0 ? differences(contentOf(dir), whole) : [`exit code ${code}`];
    if (differs.length > 0 || left.length > 0) bad++;
    console.log(
      `| ${round} | ${(ms / 1000).toFixed(2)} s | ${where} | ${from} | ${left.length} | ${differs.join(', ') || 'nothing'} |`,
    );
    rmSync(dir, { recursive: true });
  }
  console.log(`\n${rounds - bad} of ${rounds} resumed runs equal the undisturbed one`);
} finally {
  rmSync(folder, { recursive: true, force: true });
}
process.exitCode = bad > 0 ? 1 : 0;

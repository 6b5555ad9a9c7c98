import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createSafetensors } from '@frame-thinker/checkpoint';
import { afterAll, afterEach, describe, expect, it } from 'vitest';
import { addGradients, readGradients, writeGradientParts, writeGradients } from './gradient-files.ts';
import { ScratchFolder } from './scratch-folder.ts';

const sharedMemory = mkdtempSync(join(tmpdir(), 'scratch-test-'));
afterAll(() => rmSync(sharedMemory, { recursive: true }));
const open: ScratchFolder[] = [];
const start = (options: ConstructorParameters<typeof ScratchFolder>[0] = {}): ScratchFolder => {
  open.push(new ScratchFolder({ sharedMemory, ...options }));
  return open.at(-1)!;
};
afterEach(() => {
  for (const folder of open.splice(0)) folder.remove();
});

/** Pid of a process that has ended. */
const deadPid = (): number => spawnSync('true').pid;

describe('a scratch folder', () => {
  it('is made in shared memory when it is first used, and removed with all that is in it', () => {
    const folder = start();
    expect(readdirSync(sharedMemory)).toEqual([]);
    writeFileSync(folder.file('sums'), 'x');
    expect(readdirSync(join(sharedMemory, folder.name))).toEqual(['sums']);
    folder.remove();
    expect(readdirSync(sharedMemory)).toEqual([]);
  });

  it('is in the temporary folder where there is too little shared memory, which is said once', () => {
    const said: string[] = [];
    const folder = start({ warn: (line) => said.push(line) });
    folder.expect(2 ** 60);
    for (const name of ['a', 'b']) expect(folder.file(name)).toBe(join(tmpdir(), folder.name, name));
    expect(said).toHaveLength(1);
    expect(said[0]).toMatch(/ has \d+ MiB free, 1099511627776 MiB are needed: the workers' bulk data go to /);
    folder.remove();
    expect(existsSync(join(tmpdir(), folder.name))).toBe(false);

    const nowhere = start({ warn: (line) => said.push(line), sharedMemory: join(sharedMemory, 'none') });
    nowhere.file('a');
    expect(said[1]).toContain("none can't be used (ENOENT)");
  });

  it('removes those of dead processes when it starts, and no others', () => {
    const ours = start().name.slice(-8, -4);
    const theirs = (Number.parseInt(ours, 16) ^ 1).toString(16).padStart(4, '0');
    const names = [`frame-thinker-${deadPid()}-${ours}cafe`, `frame-thinker-${process.pid}-${ours}cafe`];
    const kept = [
      ...[`frame-thinker-${process.ppid}-${ours}cafe`, `other-${deadPid()}-${ours}cafe`],
      // Pids of another namespace say nothing here.
      ...[`frame-thinker-${deadPid()}-${theirs}cafe`, `frame-thinker-${process.pid}-${theirs}cafe`],
    ];
    for (const name of [...names, ...kept]) mkdirSync(join(sharedMemory, name));
    const first = start();
    first.file('x');
    const second = start();
    second.file('x');
    expect(readdirSync(sharedMemory).sort()).toEqual([...kept, first.name, second.name].sort());
    for (const name of kept) rmSync(join(sharedMemory, name), { recursive: true });
  });

  it('goes with its process, by its end or an error', () => {
    for (const end of ['process.exit(3)', 'throw new Error("oops")', '']) {
      const script = `
        import { existsSync } from 'node:fs';
        import { ScratchFolder } from ${JSON.stringify(new URL('./scratch-folder.ts', import.meta.url).href)};
        const folder = new ScratchFolder({ sharedMemory: ${JSON.stringify(sharedMemory)} });
        folder.file('x');
        console.log(existsSync(folder.candidates[0]));
        ${end}`;
      const run = spawnSync(process.execPath, ['--import', 'tsx', '--input-type=module', '-e', script]);
      expect(String(run.stdout), String(run.stderr)).toBe('true\n');
      expect(readdirSync(sharedMemory)).toEqual([]);
    }
  });
});

describe('gradient files', () => {
  it('are added in float64 in the order given, piece by piece', () => {
    const folder = start();
    const length = 300_000;
    const parts = [0, 1, 2].map((k) => Float64Array.from({ length }, (_, i) => Math.sin(i + k) * 10 ** (8 * (k - 1))));
    const paths = parts.map((part, k) => {
      writeGradients(folder.file(`part-${k}`), part);
      return folder.file(`part-${k}`);
    });
    const want = parts[0]!.map((x, i) => x + parts[1]![i]! + parts[2]![i]!);
    expect(Buffer.from(addGradients(paths).buffer).equals(Buffer.from(want.buffer))).toBe(true);
    writeGradients(paths[1]!, parts[1]!.subarray(1));
    expect(() => addGradients(paths)).toThrow(/sums of 300000, 299999, 300000 numbers/);
    const other = createSafetensors({
      path: folder.file('other'),
      tensors: [{ name: 'gradients', dtype: 'F32', shape: [0] }],
    });
    other.finish();
    expect(() => addGradients([])).toThrow(/no numbers/);
    expect(() => readGradients([folder.file('other')])).toThrow(/gradients is F32 \[0\], must be flat F64/);
  });

  it('are cut into even parts, and put together again', () => {
    const folder = start();
    for (const [length, lengths] of [
      [10, [4, 4, 2]],
      [4, [2, 2, 0]],
      [1, [1, 0, 0]],
    ] as const) {
      const whole = Float64Array.from({ length }, (_, i) => i + 0.5);
      const paths = [0, 1, 2].map((part) => folder.file(`cut-${length}-${part}`));
      writeGradientParts(paths, whole);
      expect(paths.map((path) => readGradients([path]).length)).toEqual(lengths);
      expect(readGradients(paths)).toEqual(whole);
    }
  });
});

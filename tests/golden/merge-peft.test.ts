import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { mergeCheckpoint } from '@frame-thinker/merge';
import { expect, it } from 'vitest';

const python = '.venv/bin/python';
const script = 'tests/golden/merge_peft.py';

it('LoRA folded in, and as an adapter that PEFT loads, gives the logits of the PEFT model that was cut', async (context) => {
  if (!existsSync(python)) return context.skip(`needs ${python} with tests/requirements.txt`);
  const run = (...args: string[]) => execFileSync(python, [script, ...args], { encoding: 'utf8', stdio: 'pipe' });
  const root = mkdtempSync(join(tmpdir(), 'merge-peft-'));
  try {
    const localDir = join(root, 'actor');
    mkdirSync(localDir);
    run('make', localDir);
    const [folded, keptApart] = [join(root, 'folded'), join(root, 'kept-apart')];
    const options = { backend: 'fsdp', localDir, hfModelPath: join(localDir, 'huggingface'), dtype: 'auto' } as const;
    await mergeCheckpoint({ ...options, targetDir: folded });
    await mergeCheckpoint({ ...options, targetDir: keptApart, lora: 'adapter' });
    const found = JSON.parse(run('check', localDir, folded, keptApart)) as Record<string, number>;
    expect(found.spread).toBeGreaterThan(0.1);
    expect(found).toMatchObject({ base: 0, adapter: 0 });
    // Summed in another order than torch does.
    expect(found.folded).toBeLessThan(1e-5);
  } finally {
    rmSync(root, { recursive: true });
  }
}, 400_000);

import { execFileSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { mergeCheckpoint } from '@frame-thinker/merge';
import { expect, it } from 'vitest';

const python = '.venv/bin/python';
const script = 'tests/golden/merge_transformers.py';

it('a merged folder is loaded by transformers and gives the logits of the model that was cut', async (context) => {
  if (!existsSync(python)) return context.skip(`needs ${python} with tests/requirements.txt`);
  const run = (...args: string[]) => execFileSync(python, [script, ...args], { encoding: 'utf8', stdio: 'pipe' });
  const root = mkdtempSync(join(tmpdir(), 'merge-transformers-'));
  try {
    const localDir = join(root, 'actor');
    mkdirSync(localDir);
    run('make', localDir);
    const targetDir = join(root, 'merged');
    const hfModelPath = join(localDir, 'huggingface');
    await mergeCheckpoint({
      backend: 'fsdp',
      localDir,
      hfModelPath,
      targetDir,
      dtype: 'auto',
      maxShardSize: 20_000,
    });
    expect(readdirSync(targetDir)).toContain('model.safetensors.index.json');
    const { spread, ...found } = JSON.parse(run('check', localDir, targetDir));
    expect(found).toEqual({ largest_difference: 0, missing: [], unexpected: [], dtype: 'torch.float32' });
    expect(spread).toBeGreaterThan(0.01);

    // transformers follows config.json: where the base wrongly ties the head, the flag must be in what is written.
    const wrong = join(root, 'wrong');
    cpSync(hfModelPath, wrong, { recursive: true });
    const config = JSON.parse(readFileSync(join(wrong, 'config.json'), 'utf8'));
    writeFileSync(join(wrong, 'config.json'), JSON.stringify({ ...config, tie_word_embeddings: true }));
    const untied = join(root, 'untied');
    await mergeCheckpoint({
      ...{ backend: 'fsdp', localDir, hfModelPath: wrong, targetDir: untied, dtype: 'auto', tieWordEmbedding: false },
    });
    expect(JSON.parse(run('check', localDir, untied))).toMatchObject({ largest_difference: 0, unexpected: [] });
  } finally {
    rmSync(root, { recursive: true });
  }
}, 400_000);

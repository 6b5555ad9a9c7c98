import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { createProgress, exitCodeOf, InputError, listenForInterrupt, type Progress } from '@frame-thinker/core';
import { defineCommand } from '../command.ts';

const UNITS: Record<string, number> = { '': 1, k: 1e3, m: 1e6, g: 1e9, ki: 2 ** 10, mi: 2 ** 20, gi: 2 ** 30 };

/** `5GB`, `500MB`, `2GiB`, or bytes. */
function parseSize(text: string): number {
  const [, number = '', unit = ''] = /^(\d+(?:\.\d+)?)\s*([kmg]?i?)b?$/i.exec(text) ?? [];
  const factor = UNITS[unit.toLowerCase()];
  if (number === '' || factor === undefined)
    throw new InputError(`merge: --max-shard-size ${text}: expected a size such as 5GB or 500MB`);
  return Number(number) * factor;
}

/** One decimal. */
const inMegabytes = (bytes: number): number => Math.ceil(bytes / 1e5) / 10;

export const merge = defineCommand({
  name: 'merge',
  describe: 'Joins the shards of a checkpoint into a Hugging Face model folder.',
  flags: {
    backend: { type: 'string', choices: ['fsdp', 'megatron'], default: 'fsdp', describe: 'how the checkpoint is cut' },
    'local-dir': {
      type: 'string',
      describe: '<run>/global_step_N/actor; default: the newest checkpoint of the newest run',
    },
    'hf-model-path': { type: 'string', describe: 'base model, for config and tokenizer; default: as the run says' },
    'target-dir': { type: 'string', demandOption: true, describe: 'folder to write' },
    dtype: {
      type: 'string',
      choices: ['auto', 'keep', 'bf16', 'fp16', 'fp32'],
      default: 'auto',
      describe: 'type to write',
    },
    'max-shard-size': { type: 'string', default: '5GB', describe: 'largest file, e.g. 500MB' },
    lora: {
      type: 'string',
      choices: ['merge', 'adapter'],
      default: 'merge',
      describe: 'LoRA: folded into the weights, or lora_adapter/ beside them',
    },
    'lora-alpha': { type: 'number', describe: "LoRA's alpha; default: as lora_train_meta.json says" },
    'tie-word-embedding': { type: 'boolean', describe: 'lm_head is the embedding; default: as config.json says' },
    'is-value-model': { type: 'boolean', default: false, describe: 'megatron: the output layer is a value head' },
    verify: { type: 'boolean', default: false, describe: 'read everything back and compare' },
    'test-hf-dir': { type: 'string', describe: 'compare what was written with the model in this folder' },
    'dry-run': { type: 'boolean', default: false, describe: 'list what would be written' },
  },
  examples: [
    'pnpm merge --target-dir runs/frame_thinker/default/merged',
    'pnpm merge --backend megatron --local-dir global_step_40/actor --hf-model-path Qwen2.5-VL-3B --target-dir merged --dry-run',
    'pnpm merge --backend fsdp --local-dir runs/frame_thinker/default/global_step_40/actor --hf-model-path examples/agent/base --target-dir merged',
  ],
  async run({ flags }) {
    const maxShardSize = parseSize(flags['max-shard-size']);
    const { compareHfFolders, mergeCheckpoint, newestCheckpoint } = await import('@frame-thinker/merge');
    let localDir = flags['local-dir'];
    if (localDir === undefined) {
      const newest = newestCheckpoint('runs');
      if (newest === null)
        throw new InputError('merge: there is no checkpoint below runs/: train first, or give --local-dir');
      localDir = join(newest.dir, 'actor');
      console.log(`merging step ${newest.step} of ${newest.runDir}, the newest run`);
    }
    const dryRun = flags['dry-run'];
    const testDir = flags['test-hf-dir'];
    if (testDir !== undefined && dryRun)
      throw new InputError('merge: --test-hf-dir compares what is written, --dry-run writes nothing; give one of them');
    if (testDir !== undefined && !existsSync(join(testDir, 'config.json')))
      throw new InputError(`${testDir}: no model here (config.json is missing); give --test-hf-dir another`);
    const replaces = !dryRun && existsSync(flags['target-dir']);
    const own = join(localDir, 'huggingface');
    if (flags['hf-model-path'] === undefined && existsSync(localDir) && !existsSync(own))
      throw new InputError(`${own}: missing; give --hf-model-path, the base model's folder`);
    let bar: Progress | undefined;
    let note = '';
    const stop = new AbortController();
    const interrupt = listenForInterrupt(console.error, {
      note: 'what was written is removed; once more ends at once',
      onSignal: () => stop.abort(),
    });
    const merging = mergeCheckpoint({
      backend: flags.backend as 'fsdp' | 'megatron',
      localDir,
      hfModelPath: flags['hf-model-path'] ?? own,
      targetDir: flags['target-dir'],
      dtype: flags.dtype as 'auto' | 'keep' | 'bf16' | 'fp16' | 'fp32',
      maxShardSize,
      lora: flags.lora as 'merge' | 'adapter',
      ...(flags['lora-alpha'] === undefined ? {} : { loraAlpha: flags['lora-alpha'] }),
      ...(flags['tie-word-embedding'] === undefined ? {} : { tieWordEmbedding: flags['tie-word-embedding'] }),
      isValueModel: flags['is-value-model'],
      verify: flags.verify,
      dryRun,
      onProgress: ({ done, total, tensor }) => {
        note = `${done}/${total} ${tensor}`;
      },
      onBytes: (bytes, total) => {
        bar ??= createProgress({ label: 'merge', unit: 'MB', total: inMegabytes(total) });
        bar.set(inMegabytes(bytes), note);
      },
      signal: stop.signal,
    });
    const result = await merging
      .catch((error: unknown) => {
        if (error === stop.signal.reason) return null;
        throw error;
      })
      .finally(interrupt.dispose);
    if (result === null) {
      bar?.end('stopped');
      console.error(`merge: stopped; ${flags['target-dir']} is as it was before`);
      return exitCodeOf(interrupt.signal ?? 'SIGINT');
    }
    bar?.end('done');
    for (const line of result.notes) console.log(`note: ${line}`);
    if (result.overflowed > 0)
      console.log(`warning: ${result.overflowed} values became infinite in ${result.dtype}; use --dtype fp32`);
    console.log(
      `${result.targetDir}: ${dryRun ? 'would write ' : ''}${result.tensors} tensors, ${result.bytes} bytes (${result.dtype}) of ${result.worldSize} shards in ${result.files.length} files`,
    );
    if (dryRun) for (const file of result.files) console.log(`  ${file}`);
    if (replaces) console.log(`${result.targetDir} was there and is replaced`);
    if (testDir === undefined) return 0;
    const { equal, differences } = compareHfFolders(result.targetDir, testDir);
    for (const line of differences) console.log(line);
    console.log(`${equal} tensors are those of ${testDir}, ${differences.length} are not`);
    if (differences.length > 0) return 1;
    return 0;
  },
});

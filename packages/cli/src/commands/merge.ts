import { RunError } from '@frame-thinker/core';
import { defineCommand } from '../command.ts';

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
  },
  examples: [
    'pnpm merge --target-dir runs/frame_thinker/default/merged',
    'pnpm merge --backend fsdp --local-dir runs/frame_thinker/default/global_step_40/actor --hf-model-path examples/agent/base --target-dir merged',
  ],
  async run() {
    throw new RunError('merge: not there yet');
  },
});

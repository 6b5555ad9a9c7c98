import { loadConfig } from '@frame-thinker/config';
import { InputError } from '@frame-thinker/core';
import { defineCommand } from '../command.ts';
import { printPlan, printResolvedPlan } from '../plan.ts';

export const train = defineCommand({
  name: 'train',
  describe: 'Trains a policy by GRPO, and goes on where a stopped run was.',
  flags: {
    config: { type: 'string', describe: 'YAML file, e.g. configs/frame_thinker.yaml' },
    'dry-run': { type: 'boolean', default: false, describe: 'check the configuration, print it resolved, and end' },
  },
  overrides: 'any key of the configuration, over the file, e.g. trainer.save_freq=5',
  examples: [
    'pnpm train --config configs/frame_thinker.yaml',
    'pnpm train --config configs/frame_thinker.yaml trainer.total_training_steps=5 --dry-run',
  ],
  async run({ flags, overrides }) {
    const loaded = loadConfig({ ...(flags.config === undefined ? {} : { file: flags.config }), overrides });
    if (flags['dry-run']) {
      console.log(printResolvedPlan(loaded));
      return 0;
    }
    if (loaded.config.data.train_files.length === 0)
      throw new InputError(
        'data.train_files: there is nothing to train on; name files, or use --config configs/frame_thinker.yaml',
      );
    const { runTraining } = await import('@frame-thinker/trainer');
    return runTraining({ loaded, print: console.log, onReady: () => console.error(printPlan(loaded)) });
  },
});

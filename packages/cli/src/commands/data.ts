import { RunError } from '@frame-thinker/core';
import { defineCommand } from '../command.ts';

export const data = defineCommand({
  name: 'data',
  describe:
    'Makes data sets. synth: renders the synthetic long-video task into data/synth/<seed>/, reusing what is there.',
  words: [['synth']],
  flags: {
    config: {
      type: 'string',
      default: 'configs/frame_thinker.yaml',
      describe: 'YAML file whose data.synth is rendered',
    },
    output: { type: 'string', default: 'data/synth', describe: 'folder above <seed>/' },
    jobs: { type: 'number', default: 1, describe: 'videos rendered at once' },
  },
  overrides: 'keys of the configuration, e.g. data.synth.seed=2',
  examples: ['pnpm data synth', 'pnpm data synth data.synth.seed=2 data.synth.test_videos=20'],
  async run() {
    throw new RunError('data synth: not there yet');
  },
});

import { defineCommand } from '../command.ts';

export const sft = defineCommand({
  name: 'sft',
  describe: 'Makes the tiny base policy from scripted demonstrations on rendered videos.',
  flags: {
    output: { type: 'string', default: 'examples/agent/base', describe: 'folder of the model to write' },
    seed: { type: 'number', default: 1, describe: 'seed of weights, videos and demonstrations' },
    steps: { type: 'number', describe: 'optimizer steps; default: the recipe' },
  },
  examples: ['pnpm sft --output runs/sft/base'],
  async run({ flags }) {
    const { trainBasePolicy } = await import('@frame-thinker/trainer');
    return trainBasePolicy({ output: flags.output, seed: flags.seed, steps: flags.steps, print: console.log });
  },
});

import { RunError } from '@frame-thinker/core';
import { defineCommand } from '../command.ts';

export const infer = defineCommand({
  name: 'infer',
  describe: 'Evaluates a model on a data set, question by question, and goes on where a stopped evaluation was.',
  flags: {
    model: { type: 'string', describe: 'model folder; default: the newest merged model' },
    dataset: { type: 'string', describe: 'data file; default: the test set of the synthetic task' },
    output: { type: 'string', describe: 'folder of the report; default: runs/infer/<model>-<dataset>' },
    strategy: {
      type: 'string',
      choices: ['spotlight', 'uniform'],
      default: 'spotlight',
      describe: 'look again, or answer from one uniform look at the same number of frames',
    },
    compat: { type: 'string', choices: ['reference'], describe: "the original evaluation program's parsing" },
    temperature: { type: 'number', default: 0.6, describe: '0: greedy' },
    'top-p': { type: 'number', default: 0.9 },
    'max-new-tokens': { type: 'number', default: 2048, describe: 'tokens of one turn' },
    'max-turns': { type: 'number', default: 5 },
    tries: { type: 'number', default: 3, describe: 'tries per question; one with a valid process is final' },
    limit: { type: 'number', describe: 'only the first so many questions' },
  },
  overrides: 'keys of a training configuration: env.*, engine.*, data.*, e.g. engine.threads=2',
  examples: ['pnpm infer', 'pnpm infer --model runs/frame_thinker/default/merged --dataset data/synth/1/test.jsonl'],
  async run() {
    throw new RunError('infer: not there yet');
  },
});

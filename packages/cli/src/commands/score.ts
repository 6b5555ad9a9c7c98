import { RunError } from '@frame-thinker/core';
import { defineCommand } from '../command.ts';

export const score = defineCommand({
  name: 'score',
  describe: 'Scores saved responses or trajectories by a reward.',
  flags: {
    reward: { type: 'string', default: 'ccv', describe: 'ccv, ccv-v11, or a module that exports compute_score' },
    input: {
      type: 'string',
      demandOption: true,
      describe: 'JSONL: rows {solution_str, ground_truth, extra_info}, or saved trajectories',
    },
    output: { type: 'string', demandOption: true, describe: 'JSONL to write, a line a row' },
  },
  examples: ['pnpm score --reward ccv-v11 --input rows.jsonl --output scores.jsonl'],
  async run() {
    throw new RunError('score: not there yet');
  },
});

import { InputError } from '@frame-thinker/core';
import { defineCommand } from '../command.ts';

/** What only a data file's rows are trained with. */
const OF_ROWS = ['lr', 'epochs', 'batch', 'micro-batch', 'warmup-steps', 'schedule', 'max-length'] as const;

const atLeast = (flag: string, value: number, least: number): number => {
  if (!Number.isInteger(value) || value < least)
    throw new InputError(`sft: --${flag} ${value}: expected a whole number of at least ${least}`);
  return value;
};

export const sft = defineCommand({
  name: 'sft',
  describe:
    'Supervised fine-tuning: a model on the rows of --dataset, or without it the tiny base policy from scripted demonstrations on rendered videos.',
  flags: {
    output: { type: 'string', default: 'runs/sft/base', describe: 'folder of the model to write' },
    seed: { type: 'number', default: 1, describe: 'seed of the order of rows; of weights, videos and demonstrations' },
    kinds: {
      type: 'string',
      default: 'colour,shape,place',
      describe: 'kinds of questions that the base policy is taught: colour, shape, place',
    },
    steps: { type: 'number', describe: 'end after so many optimizer steps; default: all' },
    dataset: { type: 'string', describe: 'parquet, JSON or JSONL: rows {messages, images, system}' },
    model: {
      type: 'string',
      describe:
        'Hugging Face folder to start from; without --dataset it goes on with the base policy, 60 demonstrations a step',
    },
    lr: { type: 'number', describe: 'with --dataset: learning rate (1e-5)' },
    epochs: { type: 'number', describe: 'with --dataset: passes over the rows (1)' },
    batch: { type: 'number', describe: 'with --dataset: rows in an optimizer step (8)' },
    'micro-batch': { type: 'number', describe: 'with --dataset: rows in one forward and backward (2)' },
    'warmup-steps': { type: 'number', describe: 'with --dataset: steps of linear warm-up (0)' },
    schedule: { type: 'string', choices: ['constant', 'cosine'], describe: 'with --dataset: after it (constant)' },
    'max-length': {
      type: 'number',
      describe: 'with --dataset: longest row in tokens; a longer one is an error (8192)',
    },
  },
  examples: [
    'pnpm sft --output examples/agent/base',
    'pnpm sft --dataset rows.jsonl --model examples/agent/base --output runs/sft/tuned --lr 1e-5 --epochs 2',
  ],
  async run({ flags }) {
    const { output, seed, dataset, model } = flags;
    const steps = flags.steps === undefined ? undefined : atLeast('steps', flags.steps, 1);
    const stray = OF_ROWS.find((flag) => flags[flag] !== undefined);
    if (dataset === undefined && stray) throw new InputError(`sft: --${stray} goes with --dataset`);
    const { trainBasePolicy, trainOnRows } = await import('@frame-thinker/trainer');
    if (dataset === undefined) {
      const { QUESTION_KINDS } = await import('@frame-thinker/benchmark');
      const kinds = flags.kinds.split(',').map((word) => {
        const kind = QUESTION_KINDS.find((known) => known === word);
        if (kind) return kind;
        throw new InputError(`sft: --kinds ${flags.kinds}: "${word}" is none of ${QUESTION_KINDS.join(', ')}`);
      });
      return trainBasePolicy({ output, seed, kinds, steps, from: model, print: console.log });
    }
    if (model === undefined) throw new InputError('sft: --dataset needs --model <Hugging Face folder>');
    const lr = flags.lr ?? 1e-5;
    if (!(lr > 0)) throw new InputError(`sft: --lr ${lr}: expected more than 0`);
    return trainOnRows({
      dataset,
      model,
      output,
      seed,
      steps,
      lr,
      epochs: atLeast('epochs', flags.epochs ?? 1, 1),
      batch: atLeast('batch', flags.batch ?? 8, 1),
      microBatch: atLeast('micro-batch', flags['micro-batch'] ?? 2, 1),
      warmupSteps: atLeast('warmup-steps', flags['warmup-steps'] ?? 0, 0),
      schedule: flags.schedule === 'cosine' ? 'cosine' : 'constant',
      maxLength: atLeast('max-length', flags['max-length'] ?? 8192, 1),
      print: console.log,
    });
  },
});

/** @file Probes of `data.*`. */
import { appendFileSync } from 'node:fs';
import { imageFile, RUN, rowsFile, trainingRun, VALIDATED } from './observers.ts';
import { item, probesOf } from './probe.ts';
import { ROLLED, workerRun } from './worker-run.ts';

const rows = (name: string, more: (i: number) => object): string => item('data.train_files', rowsFile(name, 6, more));
const chats = rowsFile('chats', 6, () => ({ chat: [{ role: 'user', content: 'another question' }] }));
const marked = rows('marked', () => ({
  prompt: [{ role: 'user', content: '<image>What is it?' }],
  ...{ images: [imageFile('wide', 112, 28)], pics: [imageFile('small', 28, 28)] },
}));
const long = rows('long', (i) => (i === 0 ? { prompt: [{ role: 'user', content: 'long '.repeat(60) }] } : {}));
const broken = rowsFile('broken', 6);
appendFileSync(broken, '{"prompt": 5}\n');
/** The rendered task's files are written; no row of it is used, so none of its videos is made. */
const RENDERED = [...RUN, 'data.synth={}'];
const more = rowsFile('more', 4);

export const dataProbes = [
  ...probesOf('data', [
    ['train_files', [[chats], [chats, more]], trainingRun, ...RUN, 'trainer.total_training_steps=null'],
    ['val_files', [[], [more]], trainingRun, ...RUN],
    ['synth', [null, { seed: 3 }], trainingRun, ...RUN],
    ['prompt_key', ['prompt', 'chat'], trainingRun, ...RUN, item('data.train_files', chats)],
    ['image_key', ['images', 'pics'], trainingRun, ...RUN, marked],
    ['reward_fn_key', ['data_source', 'kind'], trainingRun, ...RUN, rows('kinds', () => ({ kind: 'mine' }))],
    ['skip_broken_rows', [false, true], trainingRun, ...RUN, item('data.train_files', broken)],
    ['system_prompt', ['none', 'Be brief.'], workerRun, ...ROLLED],
    ['train_batch_size', [2, 3], trainingRun, ...RUN],
    ['val_batch_size', [null, 1], trainingRun, ...VALIDATED],
    ['max_prompt_length', [128, 40], trainingRun, ...RUN],
    ['max_response_length', [512, 24], workerRun, ...ROLLED],
    ['truncation', ['error', 'left'], trainingRun, ...RUN, long],
    ['filter_overlong_prompts', [false, true], trainingRun, ...RUN, long],
    ['shuffle', [true, false], trainingRun, ...RUN],
    ['seed', [1, 2], trainingRun, ...RUN],
    ['train_max_samples', [-1, 2], trainingRun, ...RUN],
    ['val_max_samples', [-1, 1], trainingRun, ...VALIDATED],
    ['allow_absolute_paths', [true, false], trainingRun, ...RUN, marked],
  ]),
  ...probesOf('data.synth', [
    ['seed', [1, 2], trainingRun, ...RENDERED],
    ['train_videos', [16, 2], trainingRun, ...RENDERED],
    ['val_videos', [4, 2], trainingRun, ...RENDERED],
    ['test_videos', [10, 2], trainingRun, ...RENDERED],
    ['train_questions', [20, 2], trainingRun, ...RENDERED],
    ['val_questions', [16, 2], trainingRun, ...RENDERED],
    ['test_questions', [24, 2], trainingRun, ...RENDERED],
    ['kinds', [['colour', 'shape'], ['place']], trainingRun, ...RENDERED],
  ]),
];

/** @file `data.*`: what is trained and validated on. */
import { z } from 'zod';
import {
  acts,
  actsFor,
  count,
  flag,
  openMap,
  optionalCount,
  optionalText,
  paths,
  refused,
  section,
  text,
  withoutEffect,
} from './field.ts';

const LOADER = 'rows are read by the trainer itself';

/** The rendered task, used when its files are wanted: see `data.synth`. */
export const synthSchema = z
  .strictObject({
    seed: acts(z.int().min(0).max(0xffffffff).default(1), 'seed of scenes, questions and options'),
    train_videos: acts(count(16), 'videos to train on'),
    val_videos: acts(count(4), 'videos to validate on, disjoint from the others'),
    test_videos: acts(count(10), 'videos for the final measurement, disjoint from the others'),
    train_questions: acts(count(20), 'questions about each training video'),
    val_questions: acts(count(16), 'questions about each validation video'),
    test_questions: acts(count(24), 'questions about each test video'),
    kinds: acts(
      z
        .array(z.enum(['colour', 'shape', 'place']))
        .min(1)
        .default(['colour', 'shape']),
      'what is asked: the colour or the shape at a moment, or in which of four parts (place) a thing is shown',
    ),
  })
  .meta({ description: 'the rendered task' });

export const dataSchema = section('what is trained and validated on', {
  train_files: acts(
    paths(),
    'parquet, JSON or JSONL files of rows to train on; empty with data.synth: the rendered ones',
  ),
  val_files: acts(paths(), 'files of rows to validate on; empty: no validation (with data.synth: the rendered ones)'),
  synth: acts(
    synthSchema.nullable().default(null),
    'render the synthetic task into data/synth/<seed>/ where its files are absent, and use it; null: do not',
  ),
  prompt_key: acts(text('prompt'), 'column that holds the chat'),
  image_key: acts(text('images'), 'column that holds the images of the prompt'),
  reward_fn_key: acts(text('data_source'), 'column by which the reward is chosen'),
  skip_broken_rows: acts(flag(false), 'leave rows that cannot be used out, counted by reason; false: end at the first'),
  system_prompt: acts(
    z.union([z.enum(['default', 'none']), z.string()]).default('default'),
    "system message of rows that have none: default (this project's), none, or the text itself",
  ),
  train_batch_size: acts(count(32), 'questions in a training step'),
  gen_batch_size: acts(
    count(32),
    'questions rolled out at a time with algorithm.filter_groups; default: train_batch_size',
  ),
  val_batch_size: acts(optionalCount(), 'questions rolled out at once in validation; null: all'),
  max_prompt_length: acts(count(8192), 'longest prompt in tokens, image tokens counted'),
  max_response_length: acts(count(8192), 'token budget of an episode after its prompt, observations counted'),
  truncation: acts(
    z.enum(['error', 'left', 'right']).default('error'),
    'what becomes of a prompt longer than max_prompt_length: end, or cut so many tokens off; a cut inside an image is always an error',
  ),
  filter_overlong_prompts: acts(
    flag(false),
    'leave out rows whose prompt is longer than max_prompt_length, image tokens counted',
  ),
  shuffle: acts(flag(true), 'shuffle the training rows anew in each epoch'),
  seed: acts(z.int().min(0).max(0xffffffff).default(1), 'seed of the shuffle; default: trainer.seed'),
  train_max_samples: acts(z.int().min(-1).default(-1), 'use only the first so many training rows; -1: all'),
  val_max_samples: acts(z.int().min(-1).default(-1), 'use only the first so many validation rows; -1: all'),
  allow_absolute_paths: acts(flag(true), 'let rows name their video by an absolute path'),
  validation_shuffle: refused(flag(false), 'shuffle the validation rows', {
    supported: [false],
    reason: 'validation keeps the order of the rows, so that records can be compared',
  }),
  custom_cls: section("a data set class of the user's", {
    path: refused(optionalText(), 'file of the class', {
      supported: [null],
      reason: 'Python data set classes cannot be loaded; write JSONL rows instead',
    }),
    name: refused(optionalText(), 'name of the class', { supported: [null], reason: 'see data.custom_cls.path' }),
  }),
  video_key: actsFor(text('videos'), 'column of whole-video inputs', {
    supported: ['videos'],
    reason: 'videos come from extra_info.video_path or the column video',
  }),
  tokenizer: withoutEffect(optionalText(), 'tokenizer path', 'the tokenizer comes with the model'),
  use_shm: withoutEffect(flag(false), 'copy data into shared memory', LOADER),
  return_raw_input_ids: withoutEffect(flag(false), 'keep the ids of the prompt', LOADER),
  return_raw_chat: withoutEffect(flag(true), 'keep the chat of the prompt', 'the chat is always kept'),
  return_full_prompt: withoutEffect(flag(false), 'keep the templated prompt', 'the prompt is always kept'),
  return_multi_modal_inputs: withoutEffect(flag(true), 'keep the processed images', LOADER),
  dataloader_num_workers: withoutEffect(z.int().min(0).default(0), 'loader processes', LOADER),
  filter_overlong_prompts_workers: withoutEffect(count(1), 'processes that count prompt lengths', LOADER),
  trust_remote_code: withoutEffect(flag(false), "run a model folder's Python", 'no code of a model folder is ever run'),
  apply_chat_template_kwargs: refused(openMap(), 'extra variables of the chat template', {
    supported: [],
    reason: 'the template gets no extra variables',
  }),
});

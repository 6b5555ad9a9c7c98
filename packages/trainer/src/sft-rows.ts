/** @file Supervised fine-tuning on rows {messages, images, system}: the loss is on assistant turns only. */
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { imageSize } from '@frame-thinker/agent-env';
import {
  type FrameRef,
  type ImageSource,
  InputError,
  listenForInterrupt,
  type Message,
  messageOf,
} from '@frame-thinker/core';
import { IM_END, IMAGE_MARK, imagePadCount, loadProcessor, type Processor } from '@frame-thinker/qwen-vl';
import { z } from 'zod';
import { rawRows } from './data-files.ts';
import { learningRate } from './learning-rate.ts';
import { createQuestionSampler } from './question-sampler.ts';
import { imagesOf, messagesSchema, parseColumns } from './samples.ts';
import { runSftFolder } from './sft-run.ts';
import type { SftRow, SftSource } from './sft-source.ts';

const rowSchema = z.looseObject({ messages: messagesSchema, system: z.string().nullish() });

export interface Conversation {
  messages: Message[];
  images: ImageSource[];
  where: string;
}

/** Rows of a data file. @throws InputError naming file and line of the first that is broken. */
export async function readConversations(file: string): Promise<Conversation[]> {
  const rows: Conversation[] = [];
  for await (const { where, value, notJson } of rawRows(file)) {
    try {
      if (notJson !== undefined) throw new InputError(`not JSON (${notJson})`);
      const row = parseColumns(rowSchema, value);
      const messages = row.messages as Message[];
      const own = messages.some(({ role }) => role === 'system');
      if (row.system && own) throw new InputError('a system column and a system message: keep one');
      if (!messages.some(({ role }) => role === 'assistant'))
        throw new InputError('no assistant turn, so there is nothing to learn');
      const marked = messages.find(({ role, content }) => role === 'assistant' && content.includes(IMAGE_MARK));
      if (marked) throw new InputError(`${IMAGE_MARK} in an assistant turn: the policy cannot write images`);
      const images = imagesOf('images', row.images, file, true);
      const marks = messages.reduce((sum, { content }) => sum + content.split(IMAGE_MARK).length - 1, 0);
      if (marks !== images.length) throw new InputError(`${marks} "${IMAGE_MARK}" marks, but ${images.length} images`);
      const system: Message[] = row.system ? [{ role: 'system', content: row.system }] : [];
      rows.push({ messages: [...system, ...messages], images, where });
    } catch (error) {
      throw new InputError(`${where}: ${messageOf(error)}`);
    }
  }
  if (rows.length === 0) throw new InputError(`${file}: no rows`);
  return rows;
}

/**
 * A conversation in tokens; weight 1 on what an assistant turn says and on its `<|im_end|>`, 0 elsewhere. Each such piece is
 * tokenized by itself, as in generation, where the opened turn ends the prompt.
 */
export function encodeConversation(
  { messages, images, where }: Conversation,
  { processor, imagePath }: { processor: Processor; imagePath: (image: ImageSource) => string },
): SftRow {
  const { chat, tokenizer, imagePadId } = processor;
  const ids: number[] = [];
  const weights: number[] = [];
  const frames: (FrameRef & { position: number })[] = [];
  const push = (text: string, weight: number): void => {
    for (const id of tokenizer.encode(text)) {
      let count = 1;
      if (id === imagePadId) {
        const image = images[frames.length]!;
        const size = imageSize(image);
        count = imagePadCount(size, processor.images);
        frames.push({ video: imagePath(image), index: 0, ...size, sha256: '', position: ids.length });
      }
      for (let i = 0; i < count; i++) {
        ids.push(id);
        weights.push(weight);
      }
    }
  };
  let done = '';
  const grow = (text: string, weight: number): void => {
    if (!text.startsWith(done))
      throw new InputError(
        `${where}: the chat template rewrites earlier turns, so its assistant turns cannot be found`,
      );
    push(text.slice(done.length), weight);
    done = text;
  };
  for (const [i, { role }] of messages.entries()) {
    if (role !== 'assistant') continue;
    grow(chat.render(messages.slice(0, i), { addGenerationPrompt: true }), 0);
    const through = chat.render(messages.slice(0, i + 1), { addGenerationPrompt: false });
    grow(through.slice(0, through.lastIndexOf(IM_END) + IM_END.length), 1);
  }
  return {
    row: {
      ids: Int32Array.from(ids),
      mask: Uint8Array.from(weights),
      promptLength: Math.max(1, weights.indexOf(1)),
      frames,
    },
    weights: Float32Array.from(weights),
  };
}

export interface SftRowsOptions {
  dataset: string;
  model: string;
  output: string;
  seed: number;
  lr: number;
  epochs: number;
  /** Rows in an optimizer step, and in one forward and backward. */
  batch: number;
  microBatch: number;
  warmupSteps: number;
  schedule: 'constant' | 'cosine';
  /** Longest row in tokens. */
  maxLength: number;
  /** End after so many steps. */
  steps?: number | undefined;
  runDir?: string;
  print: (line: string) => void;
}

/** Rows in a step: shuffled anew in each epoch, those of like length in one micro-batch. */
export function rowsSource(rows: readonly SftRow[], options: Omit<SftRowsOptions, 'print'>): SftSource {
  const { batch, microBatch, epochs, lr, warmupSteps, schedule, seed } = options;
  if (batch > rows.length)
    throw new InputError(`--batch ${batch} is more than the ${rows.length} rows: lower it or add rows`);
  const sampler = createQuestionSampler({ rows: rows.length, batchSize: batch, seed, shuffle: true });
  const all = epochs * sampler.stepsPerEpoch;
  const rate = { lr, warmupSteps, style: schedule, totalSteps: all, minLrRatio: 0, numCycles: 0.5 };
  return {
    totalSteps: Math.min(all, options.steps ?? all),
    learningRate: (step) => learningRate(step, rate),
    microBatches: (step) => {
      const chosen = sampler.rowsOf(step + 1).map((i) => rows[i]!);
      const sorted = chosen.toSorted((a, b) => a.weights.length - b.weights.length);
      return Array.from({ length: Math.ceil(batch / microBatch) }, (_, i) =>
        sorted.slice(i * microBatch, (i + 1) * microBatch),
      );
    },
  };
}

/** Fine-tunes a model on a data file and writes it to `output`. Resumes from its run folder. Resolves with the exit code. */
export async function trainOnRows(options: SftRowsOptions): Promise<number> {
  const { dataset, model, output, seed, maxLength, print } = options;
  if (!existsSync(join(model, 'config.json')))
    throw new InputError(`${model}: no model here (config.json is missing); give --model <Hugging Face folder>`);
  const runDir = options.runDir ?? join('runs', 'sft', basename(output));
  const processor = loadProcessor(model);
  const hash = createHash('sha256');
  /** Workers read images from files. */
  const imagePath = (image: ImageSource): string => {
    if (image.kind === 'path') return image.path;
    if (image.kind !== 'bytes') throw new InputError('images of rows are files or bytes of files');
    const folder = join(runDir, 'images');
    const path = join(folder, createHash('sha256').update(image.bytes).digest('hex'));
    mkdirSync(folder, { recursive: true });
    if (!existsSync(path)) writeFileSync(path, image.bytes);
    return path;
  };
  const rows = (await readConversations(dataset)).map((conversation) => {
    const row = encodeConversation(conversation, { processor, imagePath });
    if (row.weights.length > maxLength)
      throw new InputError(
        `${conversation.where}: ${row.weights.length} tokens, more than --max-length ${maxLength}: raise it or shorten the row`,
      );
    hash.update(row.row.ids).update(row.weights);
    return row;
  });
  const tokens = rows.flatMap(({ weights }) => [...weights]);
  print(
    `${rows.length} rows of ${tokens.length} tokens, ${tokens.reduce((a, b) => a + b, 0)} of them in assistant turns`,
  );
  const { lr, epochs, batch, warmupSteps, schedule } = options;
  const source = rowsSource(rows, options);
  const interrupt = listenForInterrupt(print);
  try {
    return await runSftFolder({
      initial: model,
      runDir,
      output,
      seed,
      source,
      fingerprint: JSON.stringify([hash.digest('hex'), lr, epochs, batch, warmupSteps, schedule]),
      optimizer: { betas: [0.9, 0.999], eps: 1e-8, weightDecay: 0.01, maxNorm: 1 },
      saveFreq: source.totalSteps,
      interrupt,
      print,
    });
  } finally {
    interrupt.dispose();
  }
}

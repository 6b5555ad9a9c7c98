/** @file Reads data files into samples: JSONL and JSON in verl's row form, or short rows {video, question, options, answer}. */
import { existsSync, readFileSync } from 'node:fs';
import { dirname, isAbsolute, relative, resolve } from 'node:path';
import { InputError, type Message, messageOf, type Sample } from '@frame-thinker/core';
import { z } from 'zod';

const messageSchema = z.object({ role: z.enum(['system', 'user', 'assistant']), content: z.string() });
const extraSchema = z.looseObject({
  video_path: z.string().optional(),
  fps: z.coerce.number().positive().optional(),
  total_frames: z.coerce.number().int().positive().optional(),
});
const rowSchema = z.looseObject({
  prompt: z.array(messageSchema).min(1),
  data_source: z.string().default('unknown'),
  reward_model: z.looseObject({ ground_truth: z.coerce.string() }),
  extra_info: extraSchema.default({}),
});
const shortRowSchema = z.looseObject({
  video: z.string(),
  question: z.string(),
  options: z.union([z.array(z.string()), z.record(z.string(), z.string())]).optional(),
  answer: z.coerce.string(),
  data_source: z.string().default('unknown'),
  env_name: z.string().optional(),
});

export interface SampleFileOptions {
  envNameKey: string;
  allowAbsolutePaths: boolean;
  maxSamples: number;
}

function questionWithOptions(question: string, options: z.infer<typeof shortRowSchema>['options']): string {
  if (!options) return question;
  const entries = Array.isArray(options)
    ? options.map((text, i) => [String.fromCharCode(65 + i), text] as const)
    : Object.entries(options);
  const lettered = entries.every(([letter, text]) => new RegExp(`^\\(?${letter}[.:)]`).test(text.trim()));
  return [question, ...entries.map(([letter, text]) => (lettered ? text : `${letter}: ${text}`))].join('\n');
}

function resolveVideo(path: string, file: string, allowAbsolute: boolean): string {
  if (isAbsolute(path)) {
    if (!allowAbsolute) throw new InputError(`video path ${path} is absolute and data.allow_absolute_paths is false`);
    return path;
  }
  const folder = resolve(dirname(file));
  const full = resolve(folder, path);
  if (relative(folder, full).startsWith('..'))
    throw new InputError(`video path ${path} leads out of the data file's folder`);
  return full;
}

function parseRow(value: unknown, file: string, index: number, options: SampleFileOptions): Sample {
  const short = typeof value === 'object' && value !== null && 'video' in value && !('prompt' in value);
  const parsed = short ? shortRowSchema.safeParse(value) : rowSchema.safeParse(value);
  if (!parsed.success) {
    const issue = parsed.error.issues[0];
    throw new InputError(`${issue?.path.join('.') || 'row'}: ${issue?.message}`);
  }
  if (short) {
    const row = parsed.data as z.infer<typeof shortRowSchema>;
    const question = questionWithOptions(row.question, row.options);
    return {
      uid: `${index}`,
      prompt: [{ role: 'user', content: question }],
      videoPath: resolveVideo(row.video, file, options.allowAbsolutePaths),
      dataSource: row.data_source,
      envName: row.env_name ?? 'think_with_video',
      groundTruth: row.answer,
      extraInfo: { question, index },
    };
  }
  const row = parsed.data as z.infer<typeof rowSchema>;
  const { video_path: video, fps, total_frames: totalFrames } = row.extra_info;
  const envName = row[options.envNameKey];
  return {
    uid: `${index}`,
    prompt: row.prompt as Message[],
    dataSource: row.data_source,
    groundTruth: row.reward_model.ground_truth,
    extraInfo: row.extra_info,
    ...(video === undefined ? {} : { videoPath: resolveVideo(video, file, options.allowAbsolutePaths) }),
    ...(fps === undefined ? {} : { fps }),
    ...(totalFrames === undefined ? {} : { totalFrames }),
    ...(typeof envName === 'string' ? { envName } : {}),
  };
}

function readValues(file: string): { value: unknown; where: string }[] {
  if (!existsSync(file)) throw new InputError(`${file}: no such data file`);
  if (/\.parquet$/.test(file))
    throw new InputError(`${file}: parquet files cannot be read yet; convert the rows to JSONL`);
  const text = readFileSync(file, 'utf8');
  try {
    if (/\.jsonl$/.test(file))
      return text.split('\n').flatMap((line, i) => {
        const where = `${file}:${i + 1}`;
        if (line.trim() === '') return [];
        try {
          return [{ value: JSON.parse(line) as unknown, where }];
        } catch (error) {
          throw new InputError(`${where}: not JSON (${messageOf(error)})`);
        }
      });
    const whole: unknown = JSON.parse(text);
    if (!Array.isArray(whole)) throw new InputError(`${file}: expected a list of rows`);
    return whole.map((value, i) => ({ value, where: `${file}: row ${i}` }));
  } catch (error) {
    if (error instanceof InputError) throw error;
    throw new InputError(`${file}: not JSON (${messageOf(error)})`);
  }
}

/**
 * All rows of some data files, in order.
 * @throws InputError naming file and line of the first broken row.
 */
export function readSamples(files: readonly string[], options: SampleFileOptions): Sample[] {
  const samples: Sample[] = [];
  for (const file of files)
    for (const { value, where } of readValues(file)) {
      if (options.maxSamples >= 0 && samples.length >= options.maxSamples) return samples;
      try {
        samples.push(parseRow(value, file, samples.length, options));
      } catch (error) {
        throw new InputError(`${where}: ${messageOf(error)}`);
      }
    }
  if (files.length > 0 && samples.length === 0) throw new InputError(`${files.join(', ')}: no rows`);
  return samples;
}

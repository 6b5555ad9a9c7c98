/** @file Rows of data files as samples: verl's row form, or short rows {video, question, options, answer}. */
import { existsSync } from 'node:fs';
import { dirname, isAbsolute, relative, resolve } from 'node:path';
import { rowMessages, unknownEnvironment } from '@frame-thinker/agent-env';
import type { TrainConfig } from '@frame-thinker/config';
import { type ImageSource, InputError, type Message, messageOf, type Sample } from '@frame-thinker/core';
import { z } from 'zod';
import { type LeftOut, RowError, rawRows } from './data-files.ts';
import { embeddedImage } from './embedded-images.ts';

const messageSchema = z.object({ role: z.enum(['system', 'user', 'assistant']), content: z.string() });
export const messagesSchema = z.array(messageSchema).min(1);
/** Columns of nested parquet rows are null where a row does not have them. */
const optional = <T extends z.ZodType>(type: T) =>
  z
    .union([type, z.null()])
    .optional()
    .transform((value) => value ?? undefined);
const number = () => z.union([z.number(), z.string().regex(/\d/).transform(Number)]);
const truth = z.union([z.string(), z.number(), z.boolean()]).transform(String);
const extraSchema = z.looseObject({
  video_path: optional(z.string()),
  fps: optional(number().pipe(z.number().positive())),
  total_frames: optional(number().pipe(z.number().int().positive())),
});
const rowSchema = z.looseObject({
  reward_model: z.looseObject({ ground_truth: truth }),
  extra_info: optional(extraSchema),
});
const shortRowSchema = z.looseObject({
  video: z.string(),
  question: z.string(),
  options: optional(z.union([z.array(z.string()), z.record(z.string(), z.string())])),
  answer: truth,
  extra_info: optional(extraSchema),
});
const bytes = z.custom<Uint8Array>((value) => value instanceof Uint8Array);
const imageSchema = z.union([z.string(), z.looseObject({ bytes: optional(bytes), path: optional(z.string()) })]);

/** How rows are read. */
export interface RowOptions {
  /** Columns of the chat, the images, the data source, and the environment's name. */
  columns: { prompt: string; images: string; source: string; environment: string };
  allowAbsolutePaths: boolean;
  /** Leave broken rows out and count them, instead of ending at the first. */
  skipBroken: boolean;
  /** Use only the first so many rows; −1: all. */
  maxSamples: number;
  /** Names of environments that there are; a row with another is broken. Absent: not looked at. */
  environments?: readonly string[];
}

export function rowOptionsOf({ data, actor_rollout_ref: { rollout } }: TrainConfig, maxSamples = -1): RowOptions {
  return {
    columns: {
      prompt: data.prompt_key,
      images: data.image_key,
      source: data.reward_fn_key,
      environment: rollout.agent.tool_name_key,
    },
    allowAbsolutePaths: data.allow_absolute_paths,
    skipBroken: data.skip_broken_rows,
    maxSamples,
  };
}

export interface DataRow {
  sample: Sample;
  /** `file:line`, or `file: row i`. */
  where: string;
}

export interface DataRows {
  rows: DataRow[];
  leftOut: LeftOut[];
  /** Rows that name a file by an absolute path. */
  absolutePaths: number;
}

function questionWithOptions(question: string, options: z.infer<typeof shortRowSchema>['options']): string {
  if (!options) return question;
  const entries = Array.isArray(options)
    ? options.map((text, i) => [String.fromCharCode(65 + i), text] as const)
    : Object.entries(options);
  const lettered = entries.every(([letter, text]) => new RegExp(`^\\(?${letter}[.:)]`).test(text.trim()));
  return [question, ...entries.map(([letter, text]) => (lettered ? text : `${letter}: ${text}`))].join('\n');
}

/** A row's file: relative paths start at the data file's folder and stay below it. @throws RowError */
export function resolveBeside(kind: 'video' | 'image', path: string, file: string, allowAbsolute: boolean): string {
  if (isAbsolute(path)) {
    if (!allowAbsolute)
      throw new RowError('an absolute path', `${kind} path ${path} is absolute and data.allow_absolute_paths is false`);
    return path;
  }
  const folder = resolve(dirname(file));
  const full = resolve(folder, path);
  if (relative(folder, full).startsWith('..'))
    throw new RowError('a path out of the folder', `${kind} path ${path} leads out of the data file's folder`);
  return full;
}

/** A column of images: paths, {path}, or {bytes} of PNG or JPEG files. @throws RowError */
export function imagesOf(column: string, value: unknown, file: string, allowAbsolute: boolean): ImageSource[] {
  if (value === undefined || value === null) return [];
  if (!Array.isArray(value)) throw new RowError(`${column}: not a list`);
  return value.map((item): ImageSource => {
    const parsed = imageSchema.safeParse(item);
    const { bytes: encoded, path } =
      typeof parsed.data === 'string' ? { bytes: undefined, path: parsed.data } : (parsed.data ?? {});
    // The path beside bytes is a name from where the file was made.
    if (encoded !== undefined && encoded.length > 0) return embeddedImage(encoded);
    if (path === undefined) throw new RowError(`${column}: neither a path nor bytes`);
    const full = resolveBeside('image', path, file, allowAbsolute);
    if (!existsSync(full)) throw new RowError('a missing image', `${full}: no such image`);
    return { kind: 'path', path: full };
  });
}

/** @throws RowError naming the first column that is wrong. */
export function parseColumns<T extends z.ZodType>(
  schema: T,
  value: unknown,
  prefix: readonly string[] = [],
): z.infer<T> {
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0];
  const column = [...prefix, ...(issue?.path ?? [])].join('.') || 'row';
  throw new RowError(`${column.replace(/\.\d+/g, '')}: ${issue?.message}`, `${column}: ${issue?.message}`);
}

function parseRow(value: unknown, file: string, index: number, options: RowOptions): Sample {
  const { columns, allowAbsolutePaths } = options;
  const row = parseColumns(z.record(z.string(), z.unknown()), value);
  const source = row[columns.source];
  const environment = row[columns.environment];
  const common = { uid: `${index}`, dataSource: typeof source === 'string' ? source : 'unknown' };
  const factsOf = (extra: z.infer<typeof extraSchema> | undefined): Partial<Sample> => ({
    ...(extra?.fps === undefined ? {} : { fps: extra.fps }),
    ...(extra?.total_frames === undefined ? {} : { totalFrames: extra.total_frames }),
  });
  /** Null is what parquet writes for what a row does not have. */
  const known = (extra: Record<string, unknown> | undefined) =>
    Object.fromEntries(Object.entries(extra ?? {}).filter(([, item]) => item !== null && item !== undefined));

  if ('video' in row && (row[columns.prompt] ?? null) === null) {
    const short = parseColumns(shortRowSchema, row);
    const question = questionWithOptions(short.question, short.options);
    return {
      ...common,
      prompt: [{ role: 'user', content: question }],
      videoPath: resolveBeside('video', short.video, file, allowAbsolutePaths),
      envName: typeof environment === 'string' ? environment : 'think_with_video',
      groundTruth: short.answer,
      extraInfo: { ...known(short.extra_info), question, index },
      ...factsOf(short.extra_info),
    };
  }
  const { reward_model: model, extra_info: extra } = parseColumns(rowSchema, row);
  const images = imagesOf(columns.images, row[columns.images], file, allowAbsolutePaths);
  const video = extra?.video_path;
  return {
    ...common,
    prompt: parseColumns(messagesSchema, row[columns.prompt], [columns.prompt]) as Message[],
    groundTruth: model.ground_truth,
    extraInfo: known(extra),
    ...(images.length === 0 ? {} : { images }),
    ...(video ? { videoPath: resolveBeside('video', video, file, allowAbsolutePaths) } : {}),
    ...factsOf(extra),
    ...(typeof environment === 'string' && environment !== '' ? { envName: environment } : {}),
  };
}

/** @throws RowError when no environment has the row's name for it */
function checkEnvironment({ envName }: Sample, environments: readonly string[] | undefined): void {
  if (envName === undefined || environments === undefined || environments.includes(envName)) return;
  throw new RowError('unknown environment', unknownEnvironment(envName, environments));
}

/** @throws RowError: marks and images that differ in number, a mark in a text that has no images. */
function checkMarks(sample: Sample): void {
  try {
    rowMessages(sample);
  } catch (error) {
    throw new RowError('<image> marks and images do not fit', messageOf(error));
  }
}

const namesAbsolute = (value: unknown, sample: Sample): boolean => {
  const { video, extra_info: extra } = value as { video?: unknown; extra_info?: { video_path?: unknown } };
  const path = video ?? extra?.video_path;
  return sample.videoPath !== undefined && typeof path === 'string' && isAbsolute(path);
};

/**
 * All rows of some data files, in order and numbered through.
 * @throws InputError naming file and line of the first broken row, unless they are left out.
 */
export async function readRows(files: readonly string[], options: RowOptions): Promise<DataRows> {
  const read: DataRows = { rows: [], leftOut: [], absolutePaths: 0 };
  const full = (): boolean => options.maxSamples >= 0 && read.rows.length >= options.maxSamples;
  let index = 0;
  for (const file of files) {
    if (full()) break;
    for await (const { where, value, notJson } of rawRows(file)) {
      if (full()) break;
      try {
        if (notJson !== undefined) throw new RowError('not JSON', `not JSON (${notJson})`);
        const sample = parseRow(value, file, index, options);
        checkMarks(sample);
        checkEnvironment(sample, options.environments);
        if (namesAbsolute(value, sample)) read.absolutePaths++;
        read.rows.push({ sample, where });
      } catch (error) {
        if (!options.skipBroken || !(error instanceof RowError)) throw new InputError(`${where}: ${messageOf(error)}`);
        read.leftOut.push({ where, reason: error.reason, message: error.message });
      }
      index++;
    }
  }
  if (files.length > 0 && read.rows.length === 0 && options.maxSamples !== 0)
    throw new InputError(
      `${files.join(', ')}: no rows${read.leftOut.length > 0 ? `: all ${read.leftOut.length} are broken, e.g. ${read.leftOut[0]!.where}: ${read.leftOut[0]!.message}` : ''}`,
    );
  return read;
}

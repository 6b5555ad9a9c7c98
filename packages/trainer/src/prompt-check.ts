/** @file The prompts of all rows, made before a run starts: their lengths, and what is wrong with them. */
import { buildPrompt, type FrameSource, imageSize, type RegimeOptions } from '@frame-thinker/agent-env';
import { InputError, messageOf, type Sample } from '@frame-thinker/core';
import { imagePadCount, type Processor } from '@frame-thinker/qwen-vl';
import { type EncodedPrompt, fitPrompt, type PromptLimits } from '@frame-thinker/rollout';
import type { LeftOut } from './data-files.ts';
import type { DataRow } from './samples.ts';
import type { VideoFactsBook } from './video-facts.ts';

export interface PromptCheckOptions {
  processor: Pick<Processor, 'chat' | 'images'>;
  regimes: RegimeOptions;
  /** data.system_prompt */
  systemPrompt: string;
  limits: PromptLimits;
  /** Leave out rows whose prompt is too long. */
  filterOverlong: boolean;
  /** Leave out rows whose prompt cannot be made. */
  skipBroken: boolean;
  facts: VideoFactsBook;
}

export interface CheckedRows {
  rows: DataRow[];
  /** Broken rows that were left out. */
  leftOut: LeftOut[];
  overlong: number;
  truncated: number;
  /** Rows whose video cannot be read, so that their prompt cannot be made. */
  unreadable: string[];
  /** Tokens of the longest prompt. */
  longest: number;
}

class UnreadableVideo extends Error {}

/** The prompt in tokens as a worker will make it; no frame is decoded. */
async function encodePrompt(sample: Sample, options: PromptCheckOptions): Promise<EncodedPrompt> {
  const { processor, regimes, systemPrompt, facts } = options;
  const { fps, totalFrames, extraInfo } = sample;
  const [width, height] = [extraInfo.width, extraInfo.height].map(Number) as [number, number];
  const frames: FrameSource = {
    probe: async (video) => {
      if (fps !== undefined && totalFrames !== undefined && width > 0 && height > 0)
        return { fps, totalFrames, width, height };
      try {
        return await facts.of(video);
      } catch (error) {
        throw new UnreadableVideo(messageOf(error));
      }
    },
    get: async (video, indices, size) => indices.map((index) => ({ video, index, ...size, sha256: '' })),
  };
  const { messages, images } = await buildPrompt(sample, { frames, regimes, systemPrompt });
  const { ids, imagePositions } = processor.chat.encode(messages, {
    tokensPerImage: images.map((image) => imagePadCount(imageSize(image), processor.images)),
    addGenerationPrompt: true,
  });
  const shown = imagePositions.map((position, index) => ({
    video: '',
    index,
    width: 0,
    height: 0,
    sha256: '',
    position,
  }));
  return { ids: Int32Array.from(ids), frames: shown };
}

/** @throws InputError naming file and line of the first row whose prompt cannot be made, or is too long and not to be cut or left out. */
export async function checkPrompts(rows: readonly DataRow[], options: PromptCheckOptions): Promise<CheckedRows> {
  const { limits, filterOverlong, skipBroken } = options;
  const checked: CheckedRows = { rows: [], leftOut: [], overlong: 0, truncated: 0, unreadable: [], longest: 0 };
  for (const row of rows) {
    const { sample, where } = row;
    try {
      const prompt = await encodePrompt(sample, options);
      checked.longest = Math.max(checked.longest, prompt.ids.length);
      if (prompt.ids.length > limits.maxPromptLength) {
        if (filterOverlong) {
          checked.overlong++;
          continue;
        }
        fitPrompt(prompt, limits, `row ${sample.uid}`);
        checked.truncated++;
      }
    } catch (error) {
      if (error instanceof UnreadableVideo) checked.unreadable.push(`${where}: ${error.message}`);
      else if (!(error instanceof InputError)) throw error;
      else if (!skipBroken) throw new InputError(`${where}: ${error.message}`);
      else {
        checked.leftOut.push({ where, reason: 'its prompt cannot be made', message: error.message });
        continue;
      }
    }
    checked.rows.push(row);
  }
  return checked;
}

/** @file Rows and observations as tokens of the model that is loaded. */
import { buildPrompt, type FrameSource } from '@frame-thinker/agent-env';
import { type FrameRef, InputError, messageOf, type Sample } from '@frame-thinker/core';
import type { Processor } from '@frame-thinker/qwen-vl';
import { type EncodedPrompt, PromptUnreadableError, type TextCodec } from '@frame-thinker/rollout';
import type { EnvironmentSettings } from '@frame-thinker/worker-pool';
import type { FrameLibrary } from './frame-library.ts';

/** Reading frames of a prompt fails as PromptUnreadableError: data of the episode, unlike a row that is wrong. */
function unreadable<Arguments extends unknown[], T>(read: (...given: Arguments) => Promise<T>) {
  return async (...given: Arguments): Promise<T> => {
    try {
      return await read(...given);
    } catch (error) {
      throw new PromptUnreadableError(messageOf(error));
    }
  };
}

/** Makes the first prompt of a row. @throws PromptUnreadableError, InputError naming the row */
export function createPrompter(library: FrameLibrary, processor: Processor, settings: EnvironmentSettings) {
  const frames: FrameSource = {
    probe: unreadable((video) => library.probe(video)),
    get: unreadable((video, indices, size) => library.get(video, indices, size)),
  };
  const reference = unreadable((image: Parameters<FrameLibrary['reference']>[0]) => library.reference(image));
  const { regimes, systemPrompt, compat } = settings;
  return async (sample: Sample): Promise<EncodedPrompt> => {
    const { messages, images } = await buildPrompt(sample, { frames, regimes, systemPrompt, compat });
    const shown: FrameRef[] = [];
    for (const image of images) shown.push(await reference(image));
    const { ids, imagePositions } = processor.chat.encode(messages, {
      tokensPerImage: shown.map((ref) => library.tokensOf(ref)),
      addGenerationPrompt: true,
    });
    if (imagePositions.length !== shown.length)
      throw new InputError(
        `row ${sample.uid}: ${imagePositions.length} image slots in the prompt, ${shown.length} images`,
      );
    return {
      ids: Int32Array.from(ids),
      frames: shown.map((ref, i) => ({ ...ref, position: imagePositions[i]! })),
    };
  };
}

export function createCodec(library: FrameLibrary, processor: Processor, settings: EnvironmentSettings): TextCodec {
  const template = settings.template === 'chat' ? 'model' : 'reference';
  return {
    eosIds: processor.eosIds,
    turnEndId: processor.imEndId,
    ban: processor.banIds,
    decode: (ids) => processor.tokenizer.decode(ids, { skipSpecialTokens: false }),
    observation: (message, frames) => {
      const tokensPerImage = frames.map((ref) => library.tokensOf(ref));
      const { ids, imagePositions } = processor.chat.encodeObservation(message, { tokensPerImage, template });
      return { ids: Int32Array.from(ids), positions: imagePositions };
    },
  };
}

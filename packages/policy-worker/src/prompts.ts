/** @file Rows and observations as tokens of the model that is loaded. */
import { buildPrompt, type FrameSource } from '@frame-thinker/agent-env';
import { type FrameRef, type Group, InputError, messageOf, type Sample } from '@frame-thinker/core';
import type { Processor } from '@frame-thinker/qwen-vl';
import { type EncodedPrompt, PromptUnreadableError, type TextCodec } from '@frame-thinker/rollout';
import type { EnvironmentSettings } from '@frame-thinker/worker-pool';
import type { FrameLibrary } from './frame-library.ts';
import { frameSource } from './frame-source.ts';

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

/** A row's own system message describes the tools, which a turn that can only answer does not have. */
const withoutSystem = (sample: Sample): Sample => ({
  ...sample,
  prompt: sample.prompt.filter(({ role }) => role !== 'system'),
});

/** Makes the first prompt of a row. @throws PromptUnreadableError, InputError naming the row */
export function createPrompter(library: FrameLibrary, processor: Processor, settings: EnvironmentSettings) {
  const { regimes, systemPrompt, compat, answerPrefill = '<think>', framesFrom } = settings;
  const source = frameSource(library, framesFrom);
  const frames: FrameSource = {
    probe: unreadable((video) => source.probe(video)),
    get: unreadable((video, indices, size) => source.get(video, indices, size)),
  };
  const reference = unreadable((image: Parameters<FrameLibrary['reference']>[0]) => library.reference(image));
  return async (row: Sample, { answerOnly = false }: Pick<Group, 'answerOnly'>): Promise<EncodedPrompt> => {
    const sample = answerOnly && systemPrompt !== 'none' ? withoutSystem(row) : row;
    if (framesFrom && sample.images?.length)
      throw new InputError(`row ${sample.uid}: has images of its own, which cannot be replaced; give rows with videos`);
    const { messages, images } = await buildPrompt(sample, {
      frames,
      regimes,
      systemPrompt: answerOnly && systemPrompt !== 'none' ? 'answer-only' : systemPrompt,
      compat,
    });
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
    // The original's last try differs from the others in its system message alone.
    const opening = answerOnly && compat === 'none' ? processor.tokenizer.encode(answerPrefill) : [];
    return {
      ids: Int32Array.from([...ids, ...opening]),
      ...(opening.length > 0 ? { prefill: opening.length } : {}),
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

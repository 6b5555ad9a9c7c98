/** @file Prompts that are longer than a run allows: refused, or cut between images. */
import { InputError, type RolloutLimits } from '@frame-thinker/core';
import type { EncodedPrompt } from './episode.ts';

export type PromptLimits = Pick<RolloutLimits, 'maxPromptLength' | 'truncation'>;

/** An image in tokens, from its vision_start to behind its vision_end. */
function spanOf(ids: Int32Array, position: number): { from: number; to: number } {
  let to = position;
  while (ids[to] === ids[position]) to++;
  return { from: position - 1, to: to + 1 };
}

/**
 * A prompt of at most maxPromptLength tokens. `left` cuts its beginning off, `right` its end; images that are wholly cut off are gone.
 * @param where the row, for the message
 * @throws InputError when it is too long under `error`, or the cut would be inside an image.
 */
export function fitPrompt(
  prompt: EncodedPrompt,
  { maxPromptLength, truncation = 'error' }: PromptLimits,
  where: string,
): EncodedPrompt {
  const { ids, prefill = 0 } = prompt;
  const surplus = ids.length - maxPromptLength;
  if (surplus <= 0) return prompt;
  const tooLong = `${where}: the prompt has ${ids.length} tokens, more than data.max_prompt_length (${maxPromptLength})`;
  if (truncation === 'error')
    throw new InputError(`${tooLong}; raise it, or set data.filter_overlong_prompts or data.truncation`);
  const [from, to] = truncation === 'left' ? [surplus, ids.length] : [0, maxPromptLength];
  const frames = prompt.frames.flatMap((frame, i) => {
    const span = spanOf(ids, frame.position);
    for (const cut of [from, to])
      if (span.from < cut && cut < span.to)
        throw new InputError(`${tooLong}, and data.truncation=${truncation} would cut inside image ${i + 1}`);
    return span.from >= from && span.to <= to ? [{ ...frame, position: frame.position - from }] : [];
  });
  const opened = truncation === 'left' ? prefill : Math.max(0, prefill - surplus);
  return { ids: ids.slice(from, to), frames, ...(opened > 0 ? { prefill: opened } : {}) };
}

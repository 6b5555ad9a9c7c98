import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { EncodedPrompt } from './episode.ts';
import { fitPrompt } from './prompt-length.ts';

const [START, PAD, END] = [901, 900, 902];
/** Texts of so many tokens, an image of so many pads after each but the last. */
function promptOf(texts: readonly number[], pads: number): EncodedPrompt {
  const ids: number[] = [];
  const frames: EncodedPrompt['frames'] = [];
  for (const [i, length] of texts.entries()) {
    for (let k = 0; k < length; k++) ids.push(k);
    if (i === texts.length - 1) break;
    frames.push({ video: 'v', index: i, width: 28, height: 28, sha256: '', position: ids.length + 1 });
    ids.push(START, ...new Array<number>(pads).fill(PAD), END);
  }
  return { ids: Int32Array.from(ids), frames };
}

describe('fitPrompt', () => {
  const prompt = promptOf([4, 3, 5], 2); // 4 + (1+2+1) + 3 + (1+2+1) + 5 = 20 tokens
  const fit = (maxPromptLength: number, truncation?: 'error' | 'left' | 'right') =>
    fitPrompt(prompt, { maxPromptLength, ...(truncation ? { truncation } : {}) }, 'row 3');

  it('leaves what fits, and refuses what does not by default', () => {
    expect(fit(20)).toBe(prompt);
    expect(() => fit(19)).toThrow(/^row 3: the prompt has 20 tokens, more than data.max_prompt_length \(19\)/);
  });
  it('cuts tokens off at one end, with the images in them', () => {
    expect(fit(12, 'left')).toMatchObject({ ids: prompt.ids.slice(8), frames: [{ index: 1, position: 4 }] });
    expect(fit(11, 'right')).toMatchObject({ ids: prompt.ids.slice(0, 11), frames: [{ index: 0, position: 5 }] });
    expect(fit(2, 'left').frames).toEqual([]);
  });
  it.each(['left', 'right'] as const)('never cuts inside an image (%s)', (truncation) => {
    fc.assert(
      fc.property(
        fc.array(fc.nat(4), { minLength: 1, maxLength: 4 }),
        fc.integer({ min: 1, max: 4 }),
        fc.nat(30),
        (texts, pads, max) => {
          const whole = promptOf(texts, pads);
          const cut = truncation === 'left' ? whole.ids.length - max : max;
          const inside = whole.frames.some(({ position }) => position - 1 < cut && cut < position + pads + 1);
          const options = { maxPromptLength: max, truncation };
          if (cut <= 0 || cut >= whole.ids.length || !inside) {
            const { ids, frames } = fitPrompt(whole, options, 'r');
            expect(ids.length).toBe(Math.min(max, whole.ids.length));
            expect(ids.filter((id) => id === START).length).toBe(frames.length);
            for (const { position } of frames) expect(ids[position - 1]).toBe(START);
          } else expect(() => fitPrompt(whole, options, 'r')).toThrow(/would cut inside image/);
        },
      ),
    );
  });
  it('keeps the opening of the turn on the left cut', () => {
    const opened = { ...prompt, prefill: 2 };
    expect(fitPrompt(opened, { maxPromptLength: 12, truncation: 'left' }, 'r').prefill).toBe(2);
    expect(fitPrompt(opened, { maxPromptLength: 19, truncation: 'right' }, 'r').prefill).toBe(1);
  });
});

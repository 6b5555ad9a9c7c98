/** @file The model's chat template: conversations and observations as token ids, images as runs of pads. */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { readJsonFile } from '@frame-thinker/checkpoint';
import { InputError, type Message, messageOf } from '@frame-thinker/core';
import { Template } from '@huggingface/jinja';
import type { TextTokenizer } from './tokenizer.ts';

export const IMAGE_MARK = '<image>';
export const IM_END = '<|im_end|>';
export const VISION_TOKENS = {
  imagePad: '<|image_pad|>',
  videoPad: '<|video_pad|>',
  visionStart: '<|vision_start|>',
  visionEnd: '<|vision_end|>',
} as const;

/** What one `<image>` becomes before its pad is repeated. */
const IMAGE_TEXT = `${VISION_TOKENS.visionStart}${VISION_TOKENS.imagePad}${VISION_TOKENS.visionEnd}`;

export interface EncodedText {
  ids: number[];
  /** Index in ids of each image's first image_pad. */
  imagePositions: number[];
}

export interface EncodeImages {
  /** image_pads of each `<image>`, in order. */
  tokensPerImage: readonly number[];
}

export interface ChatTemplate {
  /** The text of a conversation: each `<image>` in a content becomes one vision_start, image_pad, vision_end. */
  render(messages: readonly Message[], options: { addGenerationPrompt: boolean }): string;
  /** Ids of a conversation. @throws InputError when `<image>` marks and images differ in number. */
  encode(messages: readonly Message[], options: EncodeImages & { addGenerationPrompt: boolean }): EncodedText;
  /**
   * Ids that follow a sampled `<|im_end|>`: the rest of the assistant turn, a user turn of `message`, and the opened
   * assistant turn. `reference` gives the original environment's bytes instead of the template's.
   */
  encodeObservation(message: string, options: EncodeImages & { template?: 'model' | 'reference' }): EncodedText;
}

type Part = { type: 'text'; text: string } | { type: 'image' };

/** Reads chat_template.jinja, chat_template.json or tokenizer_config.json's chat_template. @throws InputError */
function readTemplate(dir: string): { source: string; path: string } {
  const jinja = join(dir, 'chat_template.jinja');
  if (existsSync(jinja)) return { source: readFileSync(jinja, 'utf8'), path: jinja };
  for (const name of ['chat_template.json', 'tokenizer_config.json']) {
    const path = join(dir, name);
    const template = existsSync(path) ? (readJsonFile(path) as { chat_template?: unknown }).chat_template : undefined;
    if (typeof template === 'string') return { source: template, path };
    if (Array.isArray(template)) {
      const found = template.find((entry: { name?: unknown }) => entry?.name === 'default') as { template?: unknown };
      if (typeof found?.template === 'string') return { source: found.template, path };
    }
  }
  throw new InputError(
    `${dir}: no chat template: neither chat_template.jinja nor chat_template in tokenizer_config.json`,
  );
}

/** Refuses text that would be read as an image without being one. */
function refuseVisionTokens(text: string, where: string): void {
  const token = Object.values(VISION_TOKENS).find((t) => text.includes(t));
  if (token) throw new InputError(`${where}: the text holds ${token}, which only an image may; write it another way`);
}

function partsOf(content: string): string | Part[] {
  if (!content.includes(IMAGE_MARK)) return content;
  const parts = content
    .split(IMAGE_MARK)
    .flatMap((text, i): Part[] => [
      ...(i > 0 ? [{ type: 'image' as const }] : []),
      ...(text === '' ? [] : [{ type: 'text' as const, text }]),
    ]);
  return parts;
}

/** The original environment's user turn; lines 2… of the message are not indented. */
const referenceObservation = (message: string) =>
  `${IM_END}\n        <|im_start|>user\n        ${message}${IM_END}\n        <|im_start|>assistant\n        `;

/** Loads the template of a model folder. @throws InputError when there is none or it does not render. */
export function loadChatTemplate(dir: string, tokenizer: TextTokenizer): ChatTemplate {
  const { source, path } = readTemplate(dir);
  const config = readJsonFile(join(dir, 'tokenizer_config.json')) as Record<string, unknown>;
  const specials = Object.fromEntries(
    ['bos_token', 'eos_token', 'pad_token', 'unk_token'].flatMap((key) => {
      const value = config[key];
      const text = typeof value === 'string' ? value : (value as { content?: unknown } | null | undefined)?.content;
      return typeof text === 'string' ? [[key, text]] : [];
    }),
  );
  const compiled = attempt(() => new Template(source));
  const padId = tokenizer.idOf(VISION_TOKENS.imagePad);

  function attempt<T>(action: () => T): T {
    try {
      return action();
    } catch (error) {
      throw new InputError(`${path}: the chat template does not render (${messageOf(error)})`);
    }
  }

  const render: ChatTemplate['render'] = (messages, { addGenerationPrompt }) => {
    for (const [i, { content }] of messages.entries()) refuseVisionTokens(content, `message ${i + 1}`);
    return attempt(() =>
      compiled.render({
        ...specials,
        messages: messages.map(({ role, content }) => ({ role, content: partsOf(content) })),
        add_generation_prompt: addGenerationPrompt,
      }),
    );
  };

  const encodeText = (text: string, { tokensPerImage }: EncodeImages): EncodedText => {
    const ids: number[] = [];
    const imagePositions: number[] = [];
    let image = 0;
    for (const id of tokenizer.encode(text)) {
      if (id !== padId) ids.push(id);
      else {
        imagePositions.push(ids.length);
        for (let i = tokensPerImage[image++] ?? 0; i > 0; i--) ids.push(padId);
      }
    }
    if (image !== tokensPerImage.length)
      throw new InputError(`the text has ${image} ${IMAGE_MARK}, but ${tokensPerImage.length} images are given`);
    return { ids, imagePositions };
  };

  /** What the template puts before and after a user turn's text that follows an assistant turn. */
  const observationFrame = (): { before: string; after: string } => {
    const marks = ['\u0001q\u0001', '\u0001a\u0001', '\u0001o\u0001'] as const;
    const text = render(
      [
        { role: 'user', content: marks[0] },
        { role: 'assistant', content: marks[1] },
        { role: 'user', content: marks[2] },
      ],
      { addGenerationPrompt: true },
    );
    const assistantEnd = text.indexOf(marks[1] + IM_END);
    const message = text.indexOf(marks[2]);
    if (assistantEnd < 0 || message < 0)
      throw new InputError(`${path}: the chat template must end an assistant turn with ${IM_END} and keep every turn`);
    return {
      before: text.slice(assistantEnd + marks[1].length + IM_END.length, message),
      after: text.slice(message + marks[2].length),
    };
  };
  const frame = observationFrame();

  return {
    render,
    encode: (messages, options) => encodeText(render(messages, options), options),
    encodeObservation: (message, options) => {
      refuseVisionTokens(message, 'observation');
      const text = message.replaceAll(IMAGE_MARK, IMAGE_TEXT);
      const whole =
        options.template === 'reference' ? referenceObservation(text) : `${frame.before}${text}${frame.after}`;
      return encodeText(whole, options);
    },
  };
}

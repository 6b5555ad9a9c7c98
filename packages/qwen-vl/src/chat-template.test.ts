import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { InputError, type Message } from '@frame-thinker/core';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { loadChatTemplate } from './chat-template.ts';
import { loadEosIds, loadProcessor } from './hf-folder.ts';
import { loadTokenizer } from './tokenizer.ts';

const model = join(import.meta.dirname, '../../../tests/fixtures/qwen/model');
const tokenizer = loadTokenizer(model);
const chat = loadChatTemplate(model, tokenizer);

/** chat_template of Qwen2.5-VL's published folders. */
const PUBLISHED = `{% set image_count = namespace(value=0) %}{% set video_count = namespace(value=0) %}{% for message in messages %}{% if loop.first and message['role'] != 'system' %}<|im_start|>system
You are a helpful assistant.<|im_end|>
{% endif %}<|im_start|>{{ message['role'] }}
{% if message['content'] is string %}{{ message['content'] }}<|im_end|>
{% else %}{% for content in message['content'] %}{% if content['type'] == 'image' or 'image' in content or 'image_url' in content %}{% set image_count.value = image_count.value + 1 %}{% if add_vision_id %}Picture {{ image_count.value }}: {% endif %}<|vision_start|><|image_pad|><|vision_end|>{% elif content['type'] == 'video' or 'video' in content %}{% set video_count.value = video_count.value + 1 %}{% if add_vision_id %}Video {{ video_count.value }}: {% endif %}<|vision_start|><|video_pad|><|vision_end|>{% elif 'text' in content %}{{ content['text'] }}{% endif %}{% endfor %}<|im_end|>
{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}`;

function folderWith(change: (dir: string) => void): string {
  const dir = mkdtempSync(join(tmpdir(), 'chat-'));
  for (const name of [
    'config.json',
    'generation_config.json',
    'tokenizer.json',
    'tokenizer_config.json',
    'preprocessor_config.json',
  ])
    cpSync(join(model, name), join(dir, name));
  change(dir);
  return dir;
}

const published = loadChatTemplate(
  folderWith((dir) => writeFileSync(join(dir, 'chat_template.jinja'), PUBLISHED)),
  tokenizer,
);

const text = fc
  .oneof(
    fc.string({ unit: 'grapheme', maxLength: 12 }),
    fc.constantFrom(
      '',
      ' ',
      '\n',
      '\n\n',
      'frame 3: ',
      '<action>',
      '<|im_end|>',
      '<|im_start|>user\n',
      '{{ x }}',
      '$&',
    ),
  )
  .filter((s) => !/<image>|<\|(image|video)_pad\|>|<\|vision_(start|end)\|>/.test(s));
/** A text with images in it, and how many pads each takes. */
const withImages = fc
  .tuple(text, fc.array(fc.tuple(fc.integer({ min: 1, max: 9 }), text), { maxLength: 3 }))
  .map(([first, rest]) => ({
    content: rest.reduce((all, [, after]) => `${all}<image>${after}`, first),
    tokens: rest.map(([count]) => count),
  }))
  .filter(({ content, tokens }) => content.split('<image>').length === tokens.length + 1);

describe('chat template', () => {
  it('renders as the published one', () => {
    const messages: Message[] = [
      { role: 'system', content: 'Be brief.' },
      { role: 'user', content: 'Where?\n\nframe 0: <image>\nframe 9: <image>' },
      { role: 'assistant', content: '<think>a</think>' },
    ];
    expect(published.render(messages, { addGenerationPrompt: true })).toBe(
      '<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nWhere?\n\nframe 0: <|vision_start|><|image_pad|><|vision_end|>\n' +
        'frame 9: <|vision_start|><|image_pad|><|vision_end|><|im_end|>\n<|im_start|>assistant\n<think>a</think><|im_end|>\n<|im_start|>assistant\n',
    );
    expect(published.render([{ role: 'user', content: 'x' }], { addGenerationPrompt: false })).toBe(
      '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\nx<|im_end|>\n',
    );
  });

  it.each([
    ['the fixtures', chat],
    ['the published folders', published],
  ])('of %s: turns appended one by one are the whole conversation', (_of, template) => {
    const turn = fc.tuple(text, withImages);
    fc.assert(
      fc.property(withImages, fc.array(turn, { maxLength: 3 }), (question, turns) => {
        const messages: Message[] = [{ role: 'user', content: question.content }];
        const tokensPerImage = [...question.tokens];
        const { ids, imagePositions } = template.encode(messages, { tokensPerImage, addGenerationPrompt: true });
        for (const [answer, observation] of turns) {
          // What is sampled after the opened turn begins with a tag, so that no token spans the two.
          const sampled = `<think>${answer}`;
          ids.push(...tokenizer.encode(sampled), tokenizer.idOf('<|im_end|>'));
          const more = template.encodeObservation(observation.content, { tokensPerImage: observation.tokens });
          imagePositions.push(...more.imagePositions.map((at) => at + ids.length));
          ids.push(...more.ids);
          messages.push({ role: 'assistant', content: sampled }, { role: 'user', content: observation.content });
          tokensPerImage.push(...observation.tokens);
        }
        expect(template.encode(messages, { tokensPerImage, addGenerationPrompt: true })).toEqual({
          ids,
          imagePositions,
        });
        const pad = tokenizer.idOf('<|image_pad|>');
        expect(ids.filter((id) => id === pad).length).toBe(tokensPerImage.reduce((sum, n) => sum + n, 0));
        for (const [i, at] of imagePositions.entries()) {
          const run = ids.slice(at - 1, at + tokensPerImage[i]! + 1);
          expect(tokenizer.decode([run[0]!, run.at(-1)!])).toBe('<|vision_start|><|vision_end|>');
          expect(new Set(run.slice(1, -1))).toEqual(new Set([pad]));
        }
      }),
      { numRuns: 150 },
    );
  });

  it("gives the original environment's bytes on demand", () => {
    const { ids } = chat.encodeObservation('frame 1: <image>\nsecond', { tokensPerImage: [2], template: 'reference' });
    expect(tokenizer.decode(ids)).toBe(
      '<|im_end|>\n        <|im_start|>user\n        frame 1: <|vision_start|><|image_pad|><|image_pad|><|vision_end|>\nsecond<|im_end|>\n        <|im_start|>assistant\n        ',
    );
    expect(tokenizer.decode(chat.encodeObservation('N', { tokensPerImage: [] }).ids)).toBe(
      '\n<|im_start|>user\nN<|im_end|>\n<|im_start|>assistant\n',
    );
  });

  it('refuses a wrong number of images and pads in a text', () => {
    const user = (content: string): Message[] => [{ role: 'user', content }];
    const options = { tokensPerImage: [1], addGenerationPrompt: true };
    expect(() => chat.encode(user('none'), options)).toThrow('has 0 <image>, but 1 images');
    expect(() => chat.encode(user('<image><image>'), options)).toThrow('has 2 <image>, but 1 images');
    expect(() => chat.encode(user('<|image_pad|>'), options)).toThrow('message 1: the text holds <|image_pad|>');
    expect(() => chat.encodeObservation('<|vision_start|>', { tokensPerImage: [] })).toThrow(InputError);
  });

  it('comes from chat_template.jinja, chat_template.json or tokenizer_config.json', () => {
    const json = folderWith((dir) => {
      writeFileSync(
        join(dir, 'chat_template.json'),
        JSON.stringify({ chat_template: PUBLISHED.replace('helpful', 'terse') }),
      );
    });
    const render = (dir: string) =>
      loadChatTemplate(dir, tokenizer).render([{ role: 'user', content: 'x' }], { addGenerationPrompt: false });
    expect(render(json)).toContain('a terse assistant');
    const none = folderWith((dir) => writeFileSync(join(dir, 'tokenizer_config.json'), '{}'));
    expect(() => loadChatTemplate(none, tokenizer)).toThrow('no chat template');
    const broken = folderWith((dir) => writeFileSync(join(dir, 'chat_template.jinja'), '{% for x in %}'));
    expect(() => loadChatTemplate(broken, tokenizer)).toThrow(
      /chat_template\.jinja: the chat template does not render/,
    );
    const odd = folderWith((dir) => writeFileSync(join(dir, 'chat_template.jinja'), '{{ messages[0].content }}'));
    expect(() => loadChatTemplate(odd, tokenizer)).toThrow('must end an assistant turn with <|im_end|>');
  });
});

describe('tokenizer', () => {
  it('takes any text back, normalised, and the empty one', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'grapheme' }), (value) => {
        expect(tokenizer.decode(tokenizer.encode(value))).toBe(value.normalize('NFC'));
      }),
    );
    expect([tokenizer.encode(''), tokenizer.decode([]), tokenizer.countTokens('')]).toEqual([[], '', 0]);
  });

  it('names what it lacks', () => {
    expect(() => tokenizer.decode([999_999])).toThrow('has no token of id 999999');
    expect(() => tokenizer.idOf('<|none|>')).toThrow('has no token <|none|>');
    const dir = folderWith((folder) => writeFileSync(join(folder, 'tokenizer.json'), '{"model":{"type":"?"}}'));
    expect(() => loadTokenizer(dir)).toThrow(InputError);
    rmSync(join(dir, 'tokenizer.json'));
    expect(() => loadTokenizer(dir)).toThrow(`${join(dir, 'tokenizer.json')}: cannot be read`);
  });
});

describe('model folder', () => {
  it('has its stop tokens from generation_config.json, else config.json', () => {
    const processor = loadProcessor(model);
    const generation = JSON.parse(readFileSync(join(model, 'generation_config.json'), 'utf8'));
    expect(processor.eosIds).toEqual([generation.eos_token_id].flat());
    expect(processor.imEndId).toBe(tokenizer.idOf('<|im_end|>'));
    expect(processor.banIds.map((id) => tokenizer.decode([id]))).toEqual([
      '<|image_pad|>',
      '<|video_pad|>',
      '<|vision_start|>',
      '<|vision_end|>',
    ]);
    const generationOf = (value: unknown) =>
      folderWith((dir) => writeFileSync(join(dir, 'generation_config.json'), JSON.stringify(value)));
    expect(loadEosIds(generationOf({ eos_token_id: [5, 4, 5] }))).toEqual([5, 4]);
    expect(() => loadEosIds(generationOf({}))).toThrow('must name the stop tokens');
    expect(loadEosIds(folderWith((dir) => rmSync(join(dir, 'generation_config.json'))))).toEqual(processor.eosIds);
  });
});

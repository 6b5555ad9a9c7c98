import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { loadProcessor } from '@frame-thinker/qwen-vl';
import { afterAll, describe, expect, it } from 'vitest';
import { encodeConversation, readConversations, rowsSource } from './sft-rows.ts';

const dir = mkdtempSync(join(tmpdir(), 'ft-sft-rows-'));
afterAll(() => rmSync(dir, { recursive: true }));
const processor = loadProcessor(join(import.meta.dirname, '../../../examples/agent/base'));
/** The header of a PNG of 112 x 56 pixels: as much as its size needs. */
const png = Uint8Array.from([
  0x89, 0x50, 0x4e, 0x47, 13, 10, 26, 10, 0, 0, 0, 13, 73, 72, 68, 82, 0, 0, 0, 112, 0, 0, 0, 56,
]);
writeFileSync(join(dir, 'a.png'), png);
const file = (name: string, ...rows: unknown[]): string => {
  writeFileSync(join(dir, name), rows.map((row) => JSON.stringify(row)).join('\n'));
  return join(dir, name);
};
const user = (content: string) => ({ role: 'user', content });
const assistant = (content: string) => ({ role: 'assistant', content });
const talk = [user('frame 0: <image>'), assistant('look'), user('again'), assistant('shape A')];
const encode = async (row: unknown) => {
  const [conversation] = await readConversations(file('one.jsonl', row));
  return encodeConversation(conversation!, {
    processor,
    imagePath: (image) => (image.kind === 'path' ? image.path : ''),
  });
};

describe('rows of conversations', () => {
  it('put the loss on what assistants say and their end of turn, on nothing else', async () => {
    const { row, weights } = await encode({ messages: talk, images: ['a.png'], system: 'be brief' });
    const learnt: string[] = [];
    for (let i = 0; i < weights.length; i++) {
      if (!weights[i]) continue;
      let end = i;
      while (weights[end]) end++;
      learnt.push(processor.tokenizer.decode(row.ids.subarray(i, end), { skipSpecialTokens: false }));
      i = end;
    }
    expect(learnt).toEqual(['look<|im_end|>', 'shape A<|im_end|>']);
    expect([...row.mask]).toEqual([...weights]);
  });
  it('are the tokens of the chat template, images in place', async () => {
    const { row } = await encode({ messages: talk, images: ['a.png'], system: 'be brief' });
    const whole = processor.chat.encode([{ role: 'system', content: 'be brief' }, ...(talk as never[])], {
      tokensPerImage: [8],
      addGenerationPrompt: false,
    });
    expect([...row.ids]).toEqual(whole.ids.slice(0, row.ids.length));
    expect(whole.ids.length - row.ids.length).toBeLessThanOrEqual(1); // the newline behind the last turn
    expect(row.frames).toMatchObject([
      { video: join(dir, 'a.png'), index: 0, width: 112, height: 56, position: whole.imagePositions[0] },
    ]);
  });
  it.each([
    ['nothing to learn', { messages: [user('q')] }, /bad\.jsonl:1: no assistant turn/],
    ['marks without images', { messages: talk }, /1 "<image>" marks, but 0 images/],
    [
      'an image that an assistant writes',
      { messages: [assistant('<image>')], images: ['a.png'] },
      /in an assistant turn/,
    ],
    ['two system messages', { messages: [{ role: 'system', content: 's' }, assistant('x')], system: 's' }, /keep one/],
    ['another shape', { prompt: talk }, /bad\.jsonl:1: messages: /],
  ])('refuse %s', async (_, row, message) => {
    await expect(readConversations(file('bad.jsonl', row))).rejects.toThrow(message);
  });
  it('come in each epoch once, like lengths together', async () => {
    const rows = await Promise.all(
      [1, 2, 3, 4, 5].map((n) => encode({ messages: [user('q'), assistant('shape '.repeat(n))] })),
    );
    const options = { dataset: '', model: '', output: '', seed: 1, lr: 1, epochs: 2, batch: 4, microBatch: 2 };
    const source = rowsSource(rows, { ...options, warmupSteps: 0, schedule: 'constant', maxLength: 100 });
    expect(source.totalSteps).toBe(2);
    const micros = source.microBatches(0);
    expect(micros.map((micro) => micro.length)).toEqual([2, 2]);
    const lengths = micros.flat().map(({ weights }) => weights.length);
    expect(lengths).toEqual(lengths.toSorted((a, b) => a - b));
    expect(new Set(lengths).size).toBe(4);
    expect(() =>
      rowsSource(rows, { ...options, batch: 6, warmupSteps: 0, schedule: 'constant', maxLength: 9 }),
    ).toThrow(/--batch 6 is more than the 5 rows/);
  });
});

import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { taggedBlocks } from './tagged-blocks.ts';

describe('taggedBlocks', () => {
  it('finds what the regular expression finds', () => {
    const piece = fc.constantFrom('<a>', '</a>', 'x', '\n', '<', 'a>');
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 30 }), (pieces) => {
        const text = pieces.join('');
        const expected = [...text.matchAll(/<a>(.*?)<\/a>/gs)].map((m) => [m[1], m.index, m.index + m[0].length]);
        expect(taggedBlocks(text, 'a').map((b) => [b.content, b.start, b.end])).toEqual(expected);
      }),
    );
  });
});

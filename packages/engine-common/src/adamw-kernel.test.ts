import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import wabt from 'wabt';
import { ADAMW_WASM } from './adamw-wasm.ts';

describe('the AdamW kernel', () => {
  it('is what adamw.wat assembles to', async () => {
    const source = readFileSync(join(import.meta.dirname, 'adamw.wat'), 'utf8');
    const assembler = await wabt();
    const { buffer } = assembler.parseWat('adamw.wat', source, { simd: true }).toBinary({});
    expect(Buffer.from(buffer).toString('base64')).toBe(ADAMW_WASM);
  });
});

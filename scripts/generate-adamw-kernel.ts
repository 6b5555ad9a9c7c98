/** @file Assembles packages/engine-onnx/src/adamw.wat into adamw-wasm.ts. Usage: npx tsx scripts/generate-adamw-kernel.ts */
import { readFileSync, writeFileSync } from 'node:fs';
import { resolve } from 'node:path';
import wabt from 'wabt';

const source = resolve(import.meta.dirname, '../packages/engine-onnx/src');
const assembler = await wabt();
const parsed = assembler.parseWat('adamw.wat', readFileSync(`${source}/adamw.wat`, 'utf8'), { simd: true });
const base64 = Buffer.from(parsed.toBinary({}).buffer).toString('base64');
const lines = base64.match(/.{1,110}/g) ?? [];
writeFileSync(
  `${source}/adamw-wasm.ts`,
  [
    '/** @file Generated from adamw.wat by scripts/generate-adamw-kernel.ts. */',
    '',
    '/** The module, base64. */',
    'export const ADAMW_WASM = [',
    ...lines.map((line) => `  '${line}',`),
    "].join('');",
    '',
  ].join('\n'),
);

/** @file Assembles each kernel NAME.wat into NAME-wasm.ts beside it. Usage: npx tsx scripts/generate-wasm.ts */
import { readFileSync, writeFileSync } from 'node:fs';
import { basename, resolve } from 'node:path';
import wabt from 'wabt';

const KERNELS = ['engine-common/src/adamw', 'checkpoint/src/bfloat16'];
const assembler = await wabt();
for (const kernel of KERNELS) {
  const name = basename(kernel);
  const path = resolve(import.meta.dirname, '../packages', kernel);
  const parsed = assembler.parseWat(`${name}.wat`, readFileSync(`${path}.wat`, 'utf8'), { simd: true });
  const base64 = Buffer.from(parsed.toBinary({}).buffer).toString('base64');
  const lines = base64.match(/.{1,110}/g) ?? [];
  writeFileSync(
    `${path}-wasm.ts`,
    [
      `/** @file Generated from ${name}.wat by scripts/generate-wasm.ts. */`,
      '',
      '/** The module, base64. */',
      `export const ${name.toUpperCase()}_WASM = [`,
      ...lines.map((line) => `  '${line}',`),
      "].join('');",
      '',
    ].join('\n'),
  );
}

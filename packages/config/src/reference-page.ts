/** @file The reference page of the configuration, written from the schema. */
import { type KeyInfo, keysOf } from './keys.ts';
import { FOLLOWS, trainSchema } from './schema/train.ts';

const cell = (text: string): string => text.replaceAll('|', '\\|').replaceAll('\n', ' ');

function defaultOf({ key, default: value }: KeyInfo): string {
  return `\`${cell(key in FOLLOWS ? FOLLOWS[key]! : JSON.stringify(value))}\``;
}

function effectOf({ effect, reason, supported }: KeyInfo): string {
  const only = supported?.map((value) => `\`${JSON.stringify(value)}\``).join(', ');
  if (effect === 'without-effect') return `none: ${reason}`;
  if (supported === undefined) return 'acts';
  const limit = only ? `only ${only}: ${reason}` : `only empty: ${reason}`;
  return effect === 'acts' ? `acts; ${limit}` : limit;
}

/** Markdown: one table a block, one row a key. */
export function referencePage(): string {
  const lines = [
    '# Configuration',
    '',
    'Every key of the training configuration, written from the schema by `pnpm exec tsx scripts/generate-configuration-page.ts`.',
    'A key acts, or is accepted without effect, or passes only the values that are listed; any other key is an error.',
  ];
  const blocks = new Map<string, string[]>();
  for (const info of keysOf(trainSchema)) {
    const at = info.key.lastIndexOf('.');
    const block = at < 0 ? 'top level' : info.key.slice(0, at);
    const row = [`\`${info.key.slice(at + 1)}\``, defaultOf(info), cell(info.description), cell(effectOf(info))];
    blocks.set(block, [...(blocks.get(block) ?? []), `| ${row.join(' | ')} |`]);
  }
  for (const [block, rows] of blocks)
    lines.push('', `## ${block}`, '', '| key | default | what it is | effect |', '|---|---|---|---|', ...rows);
  return `${lines.join('\n')}\n`;
}

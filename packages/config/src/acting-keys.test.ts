import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { keysOf } from './keys.ts';
import { FOLLOWS, trainSchema } from './schema/train.ts';

const packages = join(import.meta.dirname, '../..');
/** Sources that read a resolved configuration. */
const sources = ['trainer/src', 'cli/src', 'config/src']
  .flatMap((folder) =>
    readdirSync(join(packages, folder), { encoding: 'utf8' }).map((name) => join(packages, folder, name)),
  )
  .filter((file) => file.endsWith('.ts') && !file.endsWith('.test.ts'))
  .map((file) => readFileSync(file, 'utf8'))
  .join('\n')
  .concat(...Object.values(FOLLOWS));

/** Handed on as a part of their block, under whatever name: `custom_reward_function: {path, name, reward_kwargs}`. */
const PASSED_WHOLE = ['custom_reward_function.'];

it('has a reader for every key that is said to act', () => {
  const unread = keysOf(trainSchema)
    .filter(
      ({ key, effect, supported }) =>
        effect === 'acts' && supported === undefined && !PASSED_WHOLE.some((block) => key.startsWith(block)),
    )
    .filter(({ key }) => !new RegExp(`[.{,\\s]${key.split('.').at(-1)}\\b`).test(sources))
    .map(({ key }) => key);
  expect(unread).toEqual([]);
});

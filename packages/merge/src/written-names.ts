/** @file Which names of tensors a model folder can hold. */
import { InputError } from '@frame-thinker/core';

/**
 * @param names as they would be written.
 * @throws InputError naming `source` and the tensor: a name that safetensors keeps for itself, one with control characters,
 * or two tensors of one name.
 */
export function refuseNames(names: Iterable<string>, source: string): void {
  const seen = new Set<string>();
  for (const name of names) {
    const fail = (what: string) => new InputError(`${source}: tensor ${JSON.stringify(name)}: ${what}`);
    if (name === '__metadata__') throw fail('safetensors keeps this name for itself; rename the tensor');
    // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for.
    if (/[\u0000-\u001f\u007f\u2028\u2029]/.test(name)) throw fail('a name with control characters; rename the tensor');
    if (seen.has(name)) throw fail('two tensors would be written under this name');
    seen.add(name);
  }
}

/** @file The cluster's store of keys and bytes. */
import type { Calls } from './calls.ts';
import type { RequestOf, ResponseOf } from './channel.ts';

export class KeyValueStore {
  readonly #calls: Calls;
  /** Calls that change the store, one after the other: the server remembers the last, for repeats. */
  #changes: Promise<unknown> = Promise.resolve();
  #lastChange = 0;

  constructor(calls: Calls) {
    this.#calls = calls;
  }

  async put(key: string, value: Uint8Array, { overwrite }: { overwrite: boolean }): Promise<boolean> {
    return (await this.#change('kVPut', { key: Buffer.from(key), value, overwrite })).alreadyExists;
  }

  async get(key: string): Promise<Uint8Array | undefined> {
    const { value } = await this.#calls.call('kVGet', () => ({ key: Buffer.from(key) }));
    return value && new Uint8Array(value);
  }

  async delete(key: string, { prefix }: { prefix: boolean }): Promise<number> {
    return (await this.#change('kVDel', { key: Buffer.from(key), delByPrefix: prefix })).deletedNum;
  }

  #change<Name extends 'kVPut' | 'kVDel'>(name: Name, request: RequestOf<Name>): Promise<ResponseOf<Name>> {
    const metadata = { thread_id: '1', req_id: String(++this.#lastChange) };
    const done = this.#changes.then(() => this.#calls.call(name, () => request, { metadata }));
    this.#changes = done.catch(() => {});
    return done;
  }
}

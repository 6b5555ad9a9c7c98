/** @file Compiled programs by shape; the least recently used are released when their memory passes a bound. */
import type { Engine, Graph, ParameterSet, Program, Tensor } from '@frame-thinker/graph';

export interface ProgramSpec {
  key: string;
  /** Estimate of what the compiled program holds on to: an engine keeps the memory of a run for the next one. */
  bytes: number;
  build: () => Graph;
}

export interface ProgramCache {
  /** Runs the program of `key`, compiling it the first time. */
  run(spec: ProgramSpec, inputs: Record<string, Tensor>): Promise<Record<string, Tensor>>;
  release(): Promise<void>;
}

/** @param options.bytes bound of the sum; the program used last always stays */
export function createProgramCache(options: { engine: Engine; parameters: ParameterSet; bytes: number }): ProgramCache {
  const { engine, parameters } = options;
  interface Entry {
    program: Promise<Program>;
    bytes: number;
    users: number;
  }
  const entries = new Map<string, Entry>();
  const evict = async (most: number, latest?: Entry): Promise<void> => {
    let total = 0;
    for (const { bytes } of entries.values()) total += bytes;
    for (const [key, entry] of entries) {
      if (total <= most) return;
      if (entry.users > 0 || entry === latest) continue;
      entries.delete(key);
      total -= entry.bytes;
      await (await entry.program).release();
    }
  };
  return {
    run: async ({ key, bytes, build }, inputs) => {
      const entry = entries.get(key) ?? {
        program: engine.compile(build(), { parameters, label: key }),
        bytes,
        users: 0,
      };
      entries.delete(key);
      entries.set(key, entry);
      entry.users++;
      try {
        return await (await entry.program).run(inputs);
      } catch (error) {
        if (entries.get(key) === entry) entries.delete(key);
        throw error;
      } finally {
        entry.users--;
        await evict(options.bytes, entry);
      }
    },
    release: () => evict(-1),
  };
}

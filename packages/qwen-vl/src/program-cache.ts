/** @file Compiled programs by shape, the least recently used released first. */
import type { Engine, Graph, ParameterSet, Program, Tensor } from '@frame-thinker/graph';

export interface ProgramCache {
  /** Runs the program of `key`, compiling `build()` the first time. */
  run(key: string, build: () => Graph, inputs: Record<string, Tensor>): Promise<Record<string, Tensor>>;
  release(): Promise<void>;
}

export function createProgramCache(options: {
  engine: Engine;
  parameters: ParameterSet;
  /** Programs kept. */
  size: number;
}): ProgramCache {
  const { engine, parameters, size } = options;
  interface Entry {
    program: Promise<Program>;
    users: number;
  }
  const entries = new Map<string, Entry>();
  const evict = async (keep: number): Promise<void> => {
    for (const [key, entry] of entries) {
      if (entries.size <= keep) return;
      if (entry.users > 0) continue;
      entries.delete(key);
      await (await entry.program).release();
    }
  };
  return {
    run: async (key, build, inputs) => {
      const entry = entries.get(key) ?? { program: engine.compile(build(), { parameters, label: key }), users: 0 };
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
        await evict(size);
      }
    },
    release: () => evict(0),
  };
}

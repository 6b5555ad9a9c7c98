import { createRng } from '@frame-thinker/core';
import { type Program, referenceEngine, type Tensor } from '@frame-thinker/graph';
import { describe, expect, it } from 'vitest';
import { parseConfig } from './config.ts';
import { extendGraph } from './extend-graph.ts';
import { parameterSpecs } from './names.ts';
import { mropePositions, ropeTables } from './positions.ts';
import { nestedJson } from './tiny-config.ts';
import { initialise } from './weights.ts';

const config = parseConfig(nestedJson({ num_attention_heads: 4, num_key_value_heads: 2, head_dim: 8 }));
const { headDim, hidden, kvHeads, layers, imageToken } = config;
const engine = referenceEngine();
const parameters = engine.parameters(parameterSpecs(config));
for (const [name, data] of initialise(config, 2, 0.3)) parameters.write(name, data);

const float = (data: Float32Array, shape: number[]): Tensor => ({ dtype: 'float32', shape, data });
const int = (data: ArrayLike<number>): Tensor => ({
  dtype: 'int32',
  shape: [data.length],
  data: Int32Array.from(data),
});

interface Row {
  ids: number[];
  grids: [number, number, number][];
  start: number;
}

/** Inputs of a step for rows of new tokens, right-padded to `length`; features in the order of the rows' images. */
function inputsOf(rows: readonly Row[], length: number, features: Float32Array): Record<string, Tensor> {
  const half = headDim / 2;
  const tokens = rows.length * length;
  const ids = new Int32Array(tokens);
  const cos = new Float32Array(tokens * half);
  const sin = new Float32Array(tokens * half);
  rows.forEach((row, r) => {
    ids.set(row.ids, r * length);
    const tables = ropeTables(config, mropePositions({ ...row, config }).positions);
    cos.set(tables.cos, r * length * half);
    sin.set(tables.sin, r * length * half);
  });
  const at = [...ids.keys()].filter((i) => ids[i] === imageToken);
  return {
    ids: int(ids),
    cos: float(cos, [tokens, half]),
    sin: float(sin, [tokens, half]),
    ...(length > 1 && { last: int(rows.map((row, r) => r * length + row.ids.length - 1)) }),
    ...(features.length > 0 && {
      features: float(features, [at.length, hidden]),
      feature_at: int(at),
      text_mask: float(
        Float32Array.from(ids, (id) => (id === imageToken ? 0 : 1)),
        [tokens, 1],
      ),
    }),
  };
}

describe('extendGraph', () => {
  it('cached decoding of rows of different lengths = one forward over each', async () => {
    const { normal } = createRng(4, 'synth');
    const image = Float32Array.from({ length: 2 * hidden }, normal);
    const prompts: Row[] = [
      { ids: [1, 2, 3, imageToken, imageToken, 4, 5], grids: [[1, 2, 4]], start: 0 },
      { ids: [6, 7, 8], grids: [], start: 0 },
    ];
    const turns: number[][][] = [
      [
        [9, 10, 11],
        [12, 13],
      ],
      [[14], [15]],
    ];
    const capacity = 16;
    const past = Array.from({ length: 2 * layers }, () => new Float32Array(2 * kvHeads * capacity * headDim));
    const used = [0, 0];
    const next = [0, 0];
    const run = async (rows: Row[], length: number, features: Float32Array): Promise<Float32Array> => {
      const filled = used.some((n) => n > 0);
      const shape = {
        rows: 2,
        length,
        past: filled ? capacity : 0,
        features: features.length / hidden,
        chunk: 2, // smaller than the pieces
      };
      const inputs = inputsOf(rows, length, features);
      if (filled) {
        const mask = new Float32Array(2 * capacity).fill(-1e30);
        for (const [r, n] of used.entries()) mask.fill(0, r * capacity, r * capacity + n);
        inputs.past_mask = float(mask, [2, capacity]);
        past.forEach((data, i) => {
          inputs[`past_${i % 2 === 0 ? 'k' : 'v'}_${i >> 1}`] = float(data, [2, kvHeads, capacity, headDim]);
        });
      }
      const program: Program = await engine.compile(extendGraph(config, shape), { parameters });
      const out = await program.run(inputs);
      const fresh = out.new_kv!.data as Float32Array;
      past.forEach((data, i) => {
        for (let block = 0; block < 2 * kvHeads; block++) {
          const row = Math.floor(block / kvHeads);
          const from = (i * 2 * kvHeads + block) * length * headDim;
          const count = rows[row]!.ids.length * headDim;
          data.set(fresh.subarray(from, from + count), (block * capacity + used[row]!) * headDim);
        }
      });
      rows.forEach((row, r) => {
        used[r]! += row.ids.length;
        next[r] = mropePositions({ ...row, config }).next;
      });
      return out.logits!.data as Float32Array;
    };
    const sequences = prompts.map(({ ids }) => [...ids]);
    /** Logits after each whole sequence, one row at a time. */
    const whole = async (r: number): Promise<Float32Array> => {
      const ids = sequences[r]!;
      const features = r === 0 ? image : new Float32Array(0);
      const graph = extendGraph(config, { rows: 1, length: ids.length, past: 0, features: features.length / hidden });
      const program = await engine.compile(graph, { parameters });
      const out = await program.run(inputsOf([{ ids, grids: prompts[r]!.grids, start: 0 }], ids.length, features));
      return out.logits!.data as Float32Array;
    };
    const compare = async (logits: Float32Array) => {
      for (const r of [0, 1]) {
        const expected = await whole(r);
        expected.forEach((x, i) => {
          expect(Math.abs(logits[r * config.vocab + i]! - x)).toBeLessThan(1e-5);
        });
      }
    };
    await compare(await run(prompts, 9, image));
    for (const pieces of turns) {
      for (const [r, ids] of pieces.entries()) sequences[r]!.push(...ids);
      const rows = pieces.map((ids, r): Row => ({ ids, grids: [], start: next[r]! }));
      const longest = Math.max(...pieces.map((ids) => ids.length));
      await compare(await run(rows, longest === 1 ? 1 : longest + 2, new Float32Array(0)));
    }
  });
});

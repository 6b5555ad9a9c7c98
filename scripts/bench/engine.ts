/**
 * @file Times the onnx engine: a gated MLP stack forward and backward against its matmul floor, one decoding-sized step with fed
 * and frozen weights, and AdamW. `pnpm bench engine [--threads N]`. A time is the best of the rounds: the least disturbed.
 */
import { cpus, loadavg } from 'node:os';
import { InputError } from '@frame-thinker/core';
import { createOnnxEngine } from '@frame-thinker/engine-onnx';
import {
  type Engine,
  GraphBuilder,
  gradients,
  type ParameterSet,
  type ParameterSpec,
  sizeOf,
  type Tensor,
  type Value,
} from '@frame-thinker/graph';
import { type BenchOptions, type BenchResult, compare } from '../bench-result.ts';

const HIDDEN = 512;
const INNER = 1536;
const LAYERS = 4;
const ROWS = 2048;
const BATCH = 8;

const SPECS: ParameterSpec[] = Array.from({ length: LAYERS }, (_, i) => [
  { name: `${i}.norm`, shape: [HIDDEN], decay: false },
  { name: `${i}.gate`, shape: [INNER, HIDDEN] },
  { name: `${i}.up`, shape: [INNER, HIDDEN] },
  { name: `${i}.down`, shape: [HIDDEN, INNER] },
]).flat();

function waves(shape: readonly number[]): Tensor {
  const data = Float32Array.from({ length: sizeOf(shape) }, (_, i) => Math.sin(i * 1.3) / 16);
  return { dtype: 'float32', shape, data };
}

function stack(g: GraphBuilder, x: Value, weights: readonly Value[]): Value {
  let h = x;
  for (let i = 0; i < LAYERS; i++) {
    const [norm, gate, up, down] = weights.slice(4 * i, 4 * i + 4) as [Value, Value, Value, Value];
    const n = g.rmsNorm(h, norm, 1e-6);
    const linear = (v: Value, w: Value): Value => g.matmul(v, w, { transposeB: true });
    h = g.add(h, linear(g.mul(g.silu(linear(n, gate)), linear(n, up)), down));
  }
  return h;
}

/** How often each part is timed, and where its line goes. */
interface Timing {
  rounds: number;
  show(what: string, text: string): void;
}

async function best(rounds: number, run: () => Promise<unknown> | unknown): Promise<number> {
  const times: number[] = [];
  await run();
  for (let i = 0; i < rounds; i++) {
    const start = performance.now();
    await run();
    times.push(performance.now() - start);
  }
  return Math.min(...times);
}

async function timed<T>(run: () => Promise<T>): Promise<[T, number]> {
  const start = performance.now();
  return [await run(), performance.now() - start];
}

const ms = (x: number): string => `${x.toFixed(2)} ms`;

async function benchMatmul({ rounds, show }: Timing, engine: Engine): Promise<number> {
  const g = new GraphBuilder();
  const x = g.input('x', 'float32', [ROWS, HIDDEN]);
  const w = g.input('w', 'float32', [INNER, HIDDEN]);
  g.output('sum', g.sum(g.matmul(x, w, { transposeB: true }), [0, 1]));
  const program = await engine.compile(g.build(), { label: 'matmul' });
  const inputs = { x: waves(x.shape), w: waves(w.shape) };
  const time = await best(rounds, () => program.run(inputs));
  await program.release();
  const rate = (2 * ROWS * HIDDEN * INNER) / time / 1e6;
  show(`matmul ${ROWS} x ${HIDDEN} x ${INNER}`, `${ms(time)}, ${rate.toFixed(0)} GFLOP/s`);
  return rate;
}

async function benchTraining(
  { rounds, show }: Timing,
  { engine, parameters, rate }: { engine: Engine; parameters: ParameterSet; rate: number },
): Promise<{ run: number; floor: number }> {
  const g = new GraphBuilder();
  const x = g.input('x', 'float32', [ROWS, HIDDEN]);
  const weights = SPECS.map(({ name, shape }) => g.parameter(name, shape));
  const y = stack(g, x, weights);
  const cotangent = g.input('cotangent', 'float32', y.shape);
  const grads = gradients(g, [{ output: y, cotangent }], weights);
  for (const [i, { name }] of SPECS.entries()) g.output(name, grads[i]!);
  const [program, compile] = await timed(() => engine.compile(g.build(), { parameters, label: 'training' }));
  const inputs = { x: waves(x.shape), cotangent: waves(y.shape) };
  const run = await best(rounds, () => program.run(inputs));
  await program.release();
  // Forward, and backward to weights and inputs, of which the first layer's is not needed for gate and up.
  const floor = (2 * ROWS * HIDDEN * INNER * 3 * (3 * LAYERS)) / rate / 1e6;
  show(
    `training: ${LAYERS} gated MLPs, ${ROWS} rows`,
    `session ${ms(compile)}, run ${ms(run)}, matmul floor ${ms(floor)}`,
  );
  return { run, floor };
}

async function benchStep({ rounds, show }: Timing, engine: Engine, parameters: ParameterSet): Promise<void> {
  for (const frozen of [false, true]) {
    const g = new GraphBuilder();
    const x = g.input('x', 'float32', [BATCH, HIDDEN]);
    const weights = SPECS.map(({ name, shape }) => g.parameter(name, shape));
    g.output('y', stack(g, x, weights));
    const [program, compile] = await timed(() => engine.compile(g.build(), { parameters, frozen, label: 'step' }));
    const inputs = { x: waves(x.shape) };
    const run = await best(rounds, () => program.run(inputs));
    await program.release();
    show(`step: ${BATCH} rows, weights ${frozen ? 'frozen' : 'fed'}`, `session ${ms(compile)}, run ${ms(run)}`);
  }
}

async function benchAdamw({ rounds, show }: Timing, parameters: ParameterSet): Promise<void> {
  const millions = SPECS.reduce((sum, { shape }) => sum + sizeOf(shape), 0) / 1e6;
  const grads = SPECS.map(({ shape }) => waves(shape).data as Float32Array);
  const accumulate = await best(rounds, () => {
    for (const [i, { name }] of SPECS.entries()) parameters.gradients.accumulate(name, grads[i]!);
  });
  const adamw = await best(rounds, () =>
    parameters.adamw({ lr: 1e-4, betas: [0.9, 0.999], eps: 1e-8, weightDecay: 0.01, maxNorm: 1 }),
  );
  show(`accumulate, ${millions.toFixed(1)} M parameters`, `${ms(accumulate)}, ${ms(accumulate / millions)} per M`);
  show(`AdamW with norm and clip, ${millions.toFixed(1)} M parameters`, `${ms(adamw)}, ${ms(adamw / millions)} per M`);
}

export const options = { threads: { type: 'string', default: '1' } } as const;

export async function bench({ rounds, flags, log }: BenchOptions): Promise<BenchResult[]> {
  const threads = Number(flags.threads);
  if (!(Number.isInteger(threads) && threads > 0))
    throw new InputError(`bench engine: --threads ${flags.threads}: expected a whole number above 0`);
  const timing: Timing = { rounds, show: (what, text) => log(`${what.padEnd(46)} ${text}`) };
  const [load = 0] = loadavg();
  const [engine, create] = await timed(() => createOnnxEngine({ threads, provider: 'cpu' }));
  const { provider } = engine.capabilities;
  timing.show('engine', `${ms(create)}, ${provider}, ${threads} threads, ${cpus()[0]?.model}`);
  const parameters = engine.parameters(SPECS);
  for (const { name, shape } of SPECS) parameters.write(name, waves(shape).data as Float32Array);
  const rate = await benchMatmul(timing, engine);
  const { run, floor } = await benchTraining(timing, { engine, parameters, rate });
  await benchStep(timing, engine, parameters);
  await benchAdamw(timing, parameters);
  await engine.release();
  const result = { bench: 'engine', case: 'training-ms-by-matmul-floor', higher_is_better: false, goal: null, load };
  return [{ ...compare({ ...result, ours: [run], peer: [floor] }), rounds }];
}

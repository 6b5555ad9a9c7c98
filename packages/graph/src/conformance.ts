/**
 * @file The conformance suite of engines: every op, forward and gradient, on random shapes, against the float64 interpreter.
 * An engine's test runs `deviation` on each of `conformanceCases` and asserts a bound.
 */
import { gradients } from './autodiff.ts';
import { GraphBuilder } from './builder.ts';
import { interpret } from './interpreter/interpret.ts';
import { OP_SAMPLES, type OpSample } from './op-samples.ts';
import type { OpName } from './ops.ts';
import { SampleSource } from './sample-source.ts';
import type { Engine, Graph, Tensor, Value } from './types.ts';
import { NON_DIFFERENTIABLE } from './vjp/index.ts';

/** One graph with what to run it on. */
export interface ConformanceCase {
  readonly name: string;
  readonly op: OpName;
  readonly graph: Graph;
  readonly inputs: Readonly<Record<string, Tensor>>;
  readonly parameters?: Readonly<Record<string, Tensor>>;
}

/** How float tensors enter: rotating, so that each op sees inputs, parameters and constants. */
type Entry = 'input' | 'parameter' | 'constant';

interface Entered {
  values: Value[];
  inputs: Record<string, Tensor>;
  parameters: Record<string, Tensor>;
}

function enter(g: GraphBuilder, { tensors }: OpSample, entry: Entry): Entered {
  const entered: Entered = { values: [], inputs: {}, parameters: {} };
  for (const [i, tensor] of tensors.entries()) {
    const name = `x${i}`;
    // The first tensor stays an input, else a whole graph could be folded away.
    const how = i > 0 && (entry === 'constant' || tensor.dtype === 'float32') ? entry : 'input';
    if (how === 'constant') entered.values.push(g.constant(tensor.data, tensor.shape));
    else if (how === 'parameter') {
      entered.values.push(g.parameter(name, tensor.shape));
      entered.parameters[name] = tensor;
    } else {
      entered.values.push(g.input(name, tensor.dtype, tensor.shape));
      entered.inputs[name] = tensor;
    }
  }
  return entered;
}

function forwardCase(op: OpName, sample: OpSample, entry: Entry): ConformanceCase {
  const g = new GraphBuilder();
  const { values, inputs, parameters } = enter(g, sample, entry);
  g.output(
    'y',
    g.scope('forward', () => sample.build(g, values)),
  );
  return { name: `${op} ${sample.label} (${entry})`, op, graph: g.build(), inputs, parameters };
}

/** The graph of an op and its VJP: outputs y and d0, d1, … of the float operands. Input `cotangent` is y's. */
function gradientCase(op: OpName, sample: OpSample, source: SampleSource, entry: Entry): ConformanceCase | undefined {
  const g = new GraphBuilder();
  const { values, inputs, parameters } = enter(g, sample, entry);
  const wrt = values.filter((v) => v.dtype === 'float32');
  const y = g.scope('forward', () => sample.build(g, values));
  if (NON_DIFFERENTIABLE.has(op) || y.dtype !== 'float32' || wrt.length === 0) return undefined;
  const cotangent = g.input('cotangent', 'float32', y.shape);
  g.output('y', y);
  for (const [i, d] of gradients(g, [{ output: y, cotangent }], wrt).entries()) g.output(`d${i}`, d);
  return {
    name: `${op} ${sample.label} gradient (${entry})`,
    op,
    graph: g.build(),
    inputs: { ...inputs, cotangent: source.float(y.shape) },
    parameters,
  };
}

/** All cases: every op of the vocabulary, forward and gradient. The same seed gives the same cases. */
export function conformanceCases(seed: number): ConformanceCase[] {
  const source = new SampleSource(seed);
  const entries: readonly Entry[] = ['input', 'parameter', 'constant'];
  const cases: ConformanceCase[] = [];
  for (const [op, sampler] of Object.entries(OP_SAMPLES) as [OpName, (s: SampleSource) => OpSample[]][])
    for (const [i, sample] of sampler(source).entries()) {
      const entry = sample.tensors.length > 1 ? entries[i % entries.length]! : 'input';
      cases.push(forwardCase(op, sample, entry));
      const gradient = gradientCase(op, sample, source, entry);
      if (gradient) cases.push(gradient);
    }
  return cases;
}

/** The largest differences between two runs of a case. */
export interface Deviation {
  /** max |engine − reference|; Infinity where just one is NaN, or infinities differ. */
  maxAbs: number;
  /** max |engine − reference| / max(1, |reference|) */
  maxRel: number;
  /** The output where maxRel is. */
  output: string;
}

/** Compares outputs by name with a reference. Missing or ill-shaped outputs deviate infinitely. */
export function compareOutputs(
  actual: Readonly<Record<string, Pick<Tensor, 'dtype' | 'shape'> & { data: ArrayLike<number> }>>,
  reference: Readonly<Record<string, Pick<Tensor, 'dtype' | 'shape'> & { data: ArrayLike<number> }>>,
): Deviation {
  const worst: Deviation = { maxAbs: 0, maxRel: 0, output: '' };
  for (const [output, expected] of Object.entries(reference)) {
    const got = actual[output];
    if (!got || got.dtype !== expected.dtype || got.shape.join() !== expected.shape.join())
      return { maxAbs: Number.POSITIVE_INFINITY, maxRel: Number.POSITIVE_INFINITY, output };
    for (let i = 0; i < expected.data.length; i++) {
      const [x, y] = [got.data[i] ?? Number.NaN, expected.data[i]!];
      const difference = Object.is(x, y) || x === y ? 0 : Math.abs(x - y);
      const abs = Number.isNaN(difference) ? Number.POSITIVE_INFINITY : difference;
      const rel = abs === Number.POSITIVE_INFINITY ? abs : abs / Math.max(1, Math.abs(y));
      worst.maxAbs = Math.max(worst.maxAbs, abs);
      if (rel > worst.maxRel) Object.assign(worst, { maxRel: rel, output });
    }
  }
  return worst;
}

/** Runs a case on an engine and on the interpreter. */
export async function deviation(
  engine: Engine,
  { name, graph, inputs, parameters }: ConformanceCase,
): Promise<Deviation> {
  const given = Object.entries(parameters ?? {});
  const set = engine.parameters(given.map(([parameter, { shape }]) => ({ name: parameter, shape })));
  for (const [parameter, { data }] of given) set.write(parameter, data as Float32Array);
  const program = await engine.compile(graph, { parameters: set, label: name });
  try {
    return compareOutputs(await program.run(inputs), interpret(graph, inputs, parameters));
  } finally {
    await program.release();
    set.release();
  }
}

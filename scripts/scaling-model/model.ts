/** @file A model of a training step's time for any number of workers, from what was measured and from data sheets. */
import { median } from '../bench-result.ts';
import type { ScalingMeasurement, TransferCosts } from './measurement.ts';

const mean = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0) / values.length;

/** The expected largest of n standard normal numbers: ∫ of its quantile, by Blom's approximation beyond the exact first three. */
export function expectedLargest(n: number): number {
  if (n <= 1) return 0;
  if (n === 2) return 1 / Math.sqrt(Math.PI);
  if (n === 3) return 1.5 / Math.sqrt(Math.PI);
  return quantile((n - 0.375) / (n + 0.25));
}

/** The standard normal quantile by bisection of its distribution function (erf by Simpson's rule). */
function quantile(p: number): number {
  const below = (x: number): number => {
    const steps = 200;
    const density = (t: number): number => Math.exp((-t * t) / 2) / Math.sqrt(2 * Math.PI);
    let sum = density(0) + density(x);
    for (let i = 1; i < steps; i++) sum += (i % 2 === 1 ? 4 : 2) * density((x * i) / steps);
    return 0.5 + (sum * x) / steps / 3;
  };
  let [low, high] = [0, 8];
  for (let i = 0; i < 60; i++) {
    const middle = (low + high) / 2;
    if (below(middle) < p) low = middle;
    else high = middle;
  }
  return low;
}

/**
 * Seconds until the slowest of W workers has done its part of `pieces` equal pieces that take `seconds` in all, where the work of a
 * piece has the coefficient of variation `spread`.
 */
export function parallelTime(options: { seconds: number; pieces: number; workers: number; spread: number }): number {
  const { seconds, pieces, workers, spread } = options;
  const most = Math.ceil(pieces / workers);
  const busy = Math.min(workers, pieces);
  return (seconds / pieces) * most * (1 + (spread * expectedLargest(busy)) / Math.sqrt(most));
}

/** Milliseconds as `fixed + slope · bytes`, by least squares. */
export function fitLine(points: readonly (readonly [number, number])[]): { fixed: number; slope: number } {
  const x = mean(points.map(([bytes]) => bytes));
  const y = mean(points.map(([, ms]) => ms));
  const slope =
    points.reduce((sum, [bytes, ms]) => sum + (bytes - x) * (ms - y), 0) /
    points.reduce((sum, [bytes]) => sum + (bytes - x) ** 2, 0);
  return { fixed: y - slope * x, slope };
}

/** What the model takes from a measurement: times with one and two workers, what exchanging sums costs, and how unequal questions are. */
export interface MeasuredInputs {
  questions: number;
  /** Questions of a step that are learnt from. */
  learnt: number;
  /** Seconds of a step's phases with one worker that more workers share. */
  generate: number;
  update: number;
  /** Seconds of a phase that each worker takes, however many there are: graphs of shapes that are new to it, its videos. */
  own: { generate: number; update: number };
  controller: number;
  /** Coefficient of variation of the questions' longest answers. */
  spread: number;
  /** Exchange of sums, in milliseconds, of all workers' bytes. */
  exchange: { fixed: number; slope: number };
  bytes: number;
  /** Milliseconds of a small call. */
  call: number;
}

const sumBytes = ({ workers, parameters }: TransferCosts): number => workers * parameters * 8;

/** Milliseconds of collecting and spreading sums, by all workers' bytes. */
export const exchangeLine = (transfers: readonly TransferCosts[]): { fixed: number; slope: number } =>
  fitLine(transfers.map((t) => [sumBytes(t), t.collect + t.spread] as const));

export function measuredInputs(measurement: ScalingMeasurement): MeasuredInputs {
  const { runs, questions, transfers, longest, messages } = measurement;
  const stepsWith = (workers: number) => runs.filter((run) => run.workers === workers).flatMap((run) => run.steps);
  const steps = stepsWith(1);
  const spread = mean(
    longest.map((tokens) => {
      const middle = mean(tokens);
      return Math.sqrt(mean(tokens.map((t) => (t - middle) ** 2))) / middle;
    }),
  );
  const learnt = Math.round(questions * (1 - mean(steps.map((step) => step.idle))));
  const exchange = exchangeLine(transfers);
  const bytes = 8 * transfers[0]!.parameters;
  /** Of a phase: a + b with one worker, a + (what two take of b) + the rest with two. */
  const parts = (phase: string, pieces: number, rest: number): { shared: number; own: number } => {
    const [one, two] = [1, 2].map((workers) => median(stepsWith(workers).map((step) => step.each[phase]!)));
    const half = parallelTime({ seconds: 1, pieces, workers: 2, spread });
    const shared = (one! - (two! - rest)) / (1 - half);
    return { shared, own: one! - shared };
  };
  const generate = parts('gen', questions, 0);
  const update = parts('update_actor', learnt, (exchange.fixed + exchange.slope * 2 * bytes) / 1000);
  return {
    ...{ questions, learnt, spread, exchange, bytes, call: messages.call },
    ...{ generate: generate.shared, update: update.shared, own: { generate: generate.own, update: update.own } },
    controller: median(steps.map((step) => step.step - step.phases)),
  };
}

export interface StepPrediction {
  workers: number;
  /** Seconds. */
  generate: number;
  update: number;
  exchange: number;
  step: number;
}

/** A step of the measured job with W workers. */
export function predictMeasuredJob(inputs: MeasuredInputs, workers: number): StepPrediction {
  const { questions, spread, call, controller } = inputs;
  const calls = (count: number): number => (count * call) / 1000;
  const share = (seconds: number, pieces: number): number => parallelTime({ seconds, pieces, workers, spread });
  const generate = inputs.own.generate + share(inputs.generate, questions) + calls(questions);
  const update = inputs.own.update + share(inputs.update, inputs.learnt);
  const { fixed, slope } = inputs.exchange;
  const exchange = workers === 1 ? 0 : (fixed + slope * workers * inputs.bytes) / 1000 + calls(3 * workers);
  return { workers, generate, update, exchange, step: generate + update + exchange + controller };
}

/** Measured and predicted seconds of a step, and the error of the prediction in percent. */
export function validate(
  measurement: ScalingMeasurement,
): { workers: number; measured: number; predicted: number; error: number }[] {
  const inputs = measuredInputs(measurement);
  return [...new Set(measurement.runs.map((run) => run.workers))].map((workers) => {
    const steps = measurement.runs.filter((run) => run.workers === workers).flatMap((run) => run.steps);
    const measured = median(steps.map(({ step }) => step));
    const { step: predicted } = predictMeasuredJob(inputs, workers);
    return { workers, measured, predicted, error: 100 * (predicted / measured - 1) };
  });
}

/** A large job on GPUs: every value is of a data sheet, of the job's configuration, or an assumption; none is measured. */
export interface LargeJob {
  parameters: number;
  /** Bytes of a weight, and of an element of a gradient sum on its way. */
  weightBytes: number;
  sumBytes: number;
  /** Answers to a question. */
  n: number;
  /** Of a trajectory: tokens in all, and those that the policy writes, one after the other. */
  tokens: number;
  written: number;
  /** A worker's GPU: floating point operations and bytes of memory a second. */
  flops: number;
  memory: number;
  /** Share of `flops` that is reached by matrix products. */
  utilisation: number;
  /** Bytes a second of a node's network. */
  network: number;
  spread: number;
  controller: number;
}

export interface LargePrediction {
  workers: number;
  questions: number;
  generate: number;
  update: number;
  /** Seconds of exchanging gradient sums: by the local pool's way, by the Ray pool's, and by a ring (which is not there). */
  local: number;
  ray: number;
  ring: number;
}

/** Calls that each worker of a Ray pool takes for an exchange, and its shim's. */
export const RAY_CALLS = 8;

/**
 * Seconds of a step's parts. `local`: milliseconds a byte of one worker's sums, and what each worker adds to that; `ray`: milliseconds a byte of one worker's sums, which
 * each sends and gets about twice, and of a call. Calls of all workers are taken one after the other, as if the controller did nothing at the same time.
 */
export function predictLargeJob(
  job: LargeJob,
  costs: { local: { byte: number; worker: number }; ray: { byte: number; call: number } },
  { workers, questions }: { workers: number; questions: number },
): LargePrediction {
  const { parameters, n, tokens, written, flops, utilisation, spread } = job;
  const matrix = flops * utilisation;
  // Each written token of a share's rows reads all weights once; what is not written is prefilled, once a question.
  const write = (written * parameters * job.weightBytes) / job.memory;
  const prefill = (2 * parameters * (tokens - written)) / matrix;
  const train = (6 * parameters * n * tokens) / matrix;
  const bytes = parameters * job.sumBytes;
  const wire = bytes / job.network;
  return {
    ...{ workers, questions },
    generate: parallelTime({ seconds: questions * (write + prefill), pieces: questions, workers, spread }),
    update: parallelTime({ seconds: questions * train, pieces: questions, workers, spread }),
    local: (bytes * (costs.local.byte + workers * costs.local.worker)) / 1000,
    ray: Math.max(2 * wire, (bytes * costs.ray.byte) / 1000) + (RAY_CALLS * workers * costs.ray.call) / 1000,
    ring: (2 * (workers - 1) * wire) / workers,
  };
}

/** @file The blocks that verl does not have: `env`, `ccv`, `reward`, `engine`, `ray`. */
import { z } from 'zod';
import { acts, actsFor, amount, count, flag, openMap, optionalText, section, text } from './field.ts';

const regime = (frames: number, width: number, height: number) => ({
  frames: acts(count(frames), 'frames in a look'),
  max_width: acts(count(width), 'widest frame in pixels; larger ones are scaled down, aspect kept'),
  max_height: acts(count(height), 'highest frame in pixels'),
});

export const envSchema = section('the frame-spotlight environment', {
  grammar: acts(
    z.enum(['strict', 'reference']).default('strict'),
    "strict: an action is the whole block; reference: the original program's matching",
  ),
  template: acts(
    z.enum(['chat', 'reference']).default('chat'),
    "observations in the model's chat template, or in the original program's bytes",
  ),
  short: section('sampling of short videos', regime(8, 640, 360)),
  long: section('sampling of long videos', regime(12, 448, 252)),
  long_from_seconds: acts(amount(300), 'a video longer than this is long; one of unknown length is short'),
  answer_prefill: acts(
    text('<think>'),
    'opens a turn that may only answer (the last try of an evaluation, the uniform baseline)',
  ),
  registry: acts(
    z.record(z.string(), z.string()).default({}),
    "environments of your own: {name in the row's column: module}",
  ),
});

export const ccvSchema = section('bonuses of the CCV reward', {
  time_bonus: acts(amount(0.5), 'right answer after a time call that the question asks for'),
  choice_bonus: acts(amount(0.02), 'right answer after any choice of frames'),
});

const REWARD = 'expected ccv, ccv-v11 or {path, name, reward_kwargs}';
const rewardRule = () =>
  z.union(
    [
      z.enum(['ccv', 'ccv-v11']),
      z.strictObject({ path: z.string(), name: z.string().default('compute_score'), reward_kwargs: openMap() }),
    ],
    { error: REWARD },
  );

export const rewardSchema = section('which reward scores which rows', {
  default: acts(rewardRule().prefault('ccv'), 'reward of data sources that by_data_source does not name'),
  by_data_source: acts(z.record(z.string(), rewardRule()).default({}), '{data source: reward}'),
  permute: acts(flag(false), 'control: deal the rewards out at random among all trajectories of a step'),
});

export const engineSchema = section('what runs the model', {
  name: acts(z.enum(['onnx', 'tfjs']).default('onnx'), 'ONNX Runtime or TensorFlow.js'),
  provider: actsFor(z.enum(['auto', 'cpu', 'webgpu', 'cuda']).default('auto'), 'device of ONNX Runtime', {
    supported: ['auto', 'cpu'],
    reason: 'GPU providers are not there yet',
  }),
  backend: acts(
    z.enum(['auto', 'gpu', 'node', 'wasm']).default('auto'),
    'what TensorFlow.js runs on: tfjs-node-gpu, tfjs-node or WebAssembly; auto: the first of them that is there',
  ),
  threads: acts(
    z.int().min(0).default(0),
    'threads of a worker, of which WebAssembly uses one; 0: the cores divided by the workers',
  ),
});

export const raySchema = section('the Ray cluster of trainer.pool: ray', {
  address: acts(
    text('ray://127.0.0.1:10001'),
    "the cluster's Ray Client server; RAY_AUTH_TOKEN is the token, if it wants one",
  ),
  namespace: acts(text('frame-thinker'), "namespace of the workers' actors"),
  num_cpus: acts(count(1), 'cores that a worker takes of its node; its threads, unless engine.threads says otherwise'),
  num_gpus: acts(amount(0), 'GPUs that a worker takes of its node'),
  resources: acts(
    z.record(z.string(), z.number().min(0)).default({}),
    "what else a worker takes: {a resource of the cluster's own: amount}",
  ),
  placement: acts(
    z.enum(['spread', 'default']).default('spread'),
    "spread: workers over the nodes; default: Ray's own choice, which fills a node first",
  ),
  node: acts(optionalText(), 'the Node.js executable on the nodes; null: the path of the one that runs here'),
  checkout: acts(
    optionalText(),
    'where the nodes have a checkout with its dependencies installed; null: the path of this one',
  ),
  grace_seconds: acts(
    count(30),
    'how long a lost connection may take to come back; workers whose trainer is gone end 20 s later',
  ),
  start_seconds: acts(count(300), 'how long a worker may take to start, its wait for free resources included'),
});

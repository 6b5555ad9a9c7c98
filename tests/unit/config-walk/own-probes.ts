/** @file Probes of the blocks that verl does not have, and of `custom_reward_function.*`. */
import { join } from 'node:path';
import { RUN, rayPlan, root, trainingRun } from './observers.ts';
import { item, probesOf } from './probe.ts';
import { ROLLED, workerRun } from './worker-run.ts';

const plugIn = join(root, 'examples/agent/rewards/few-frames.ts');
const environment = join(root, 'examples/agent/environments/one-look.ts');
const CUSTOM = [...RUN, item('custom_reward_function.path', plugIn)];

export const ownProbes = [
  ...probesOf('env', [
    ['grammar', ['strict', 'reference'], workerRun, ...ROLLED],
    ['template', ['chat', 'reference'], workerRun, ...ROLLED],
    ['long_from_seconds', [300, 10], workerRun, ...ROLLED, 'env.long.frames=4'],
    ['answer_prefill', ['<think>', '<think> so'], workerRun, ...ROLLED],
    ['registry', [{}, { mine: environment }], workerRun, ...ROLLED],
    ['short.frames', [8, 4], workerRun, ...ROLLED],
    ['short.max_width', [112, 56], workerRun, ...ROLLED],
    ['short.max_height', [56, 28], workerRun, ...ROLLED],
    ['long.frames', [8, 4], workerRun, ...ROLLED],
    ['long.max_width', [112, 56], workerRun, ...ROLLED],
    ['long.max_height', [56, 28], workerRun, ...ROLLED],
  ]),
  ...probesOf('ccv', [
    ['time_bonus', [0.5, 0.25], trainingRun, ...RUN],
    ['choice_bonus', [0.02, 0.1], trainingRun, ...RUN],
  ]),
  ...probesOf('reward', [
    ['default', ['ccv', 'ccv-v11'], trainingRun, ...RUN],
    ['by_data_source', [{}, { odd: 'ccv-v11' }], trainingRun, ...RUN],
    ['permute', [false, true], trainingRun, ...RUN],
  ]),
  ...probesOf('custom_reward_function', [
    ['path', [null, plugIn], trainingRun, ...RUN],
    ['name', ['compute_score', 'other'], trainingRun, ...CUSTOM],
    ['reward_kwargs', [{}, { look_cost: 0.3 }], trainingRun, ...CUSTOM],
  ]),
  ...probesOf('engine', [
    ['name', ['onnx', 'tfjs'], trainingRun, ...RUN],
    ['backend', ['auto', 'wasm'], trainingRun, ...RUN, 'engine.name=tfjs'],
    ['provider', ['auto', 'cpu'], trainingRun, ...RUN],
    ['threads', [1, 2], trainingRun, ...RUN],
  ]),
  ...probesOf('ray', [
    ['address', ['ray://127.0.0.1:10001', 'ray://head:10001'], rayPlan],
    ['namespace', ['frame-thinker', 'other'], rayPlan],
    ['num_cpus', [1, 2], rayPlan],
    ['num_gpus', [0, 0.5], rayPlan],
    ['resources', [{}, { big: 1 }], rayPlan],
    ['placement', ['spread', 'default'], rayPlan],
    ['node', [null, '/opt/node'], rayPlan],
    ['checkout', [null, '/opt/frame-thinker'], rayPlan],
    ['grace_seconds', [30, 60], rayPlan],
    ['start_seconds', [300, 60], rayPlan],
  ]),
];

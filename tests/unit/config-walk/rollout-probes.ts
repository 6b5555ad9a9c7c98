/** @file Probes of `actor_rollout_ref.rollout.*`. */
import { RUN, rowsFile, trainingRun, VALIDATED } from './observers.ts';
import { item, probesOf } from './probe.ts';

const rollout = 'actor_rollout_ref.rollout';
const SAMPLED = [...VALIDATED, `${rollout}.val_kwargs.do_sample=true`, `${rollout}.val_kwargs.temperature=0.5`];

export const rolloutProbes = [
  ...probesOf(rollout, [
    ['n', [3, 2], trainingRun, ...RUN],
    ['temperature', [1, 0.7], trainingRun, ...RUN],
    ['top_p', [1, 0.9], trainingRun, ...RUN],
    ['top_k', [-1, 5], trainingRun, ...RUN],
    ['do_sample', [true, false], trainingRun, ...RUN],
    ['slots', [8, 3], trainingRun, ...RUN],
    ['recompute_log_prob', [false, true], trainingRun, ...RUN],
  ]),
  ...probesOf(`${rollout}.val_kwargs`, [
    ['n', [1, 2], trainingRun, ...SAMPLED],
    ['do_sample', [false, true], trainingRun, ...VALIDATED, `${rollout}.val_kwargs.temperature=0.5`],
    ['temperature', [0.5, 0.9], trainingRun, ...SAMPLED],
    ['top_p', [1, 0.9], trainingRun, ...SAMPLED],
    ['top_k', [-1, 5], trainingRun, ...SAMPLED],
  ]),
  ...probesOf(`${rollout}.agent`, [
    ['activate_agent', [true, false], trainingRun, ...RUN],
    [
      'tool_name_key',
      ['env_name', 'tool'],
      trainingRun,
      ...RUN,
      item(
        'data.train_files',
        rowsFile('tools', 6, () => ({ tool: 'think_with_video' })),
      ),
    ],
    ['max_turns', [5, 2], trainingRun, ...RUN],
    ['single_response_max_tokens', [64, 16], trainingRun, ...RUN],
    ['max_vllm_images', [128, 9], trainingRun, ...RUN],
  ]),
];

/** @file Probes of `actor_rollout_ref.rollout.*`. */
import { RUN, rowsFile, trainingRun, VALIDATED } from './observers.ts';
import { item, probesOf } from './probe.ts';
import { ROLLED, workerRun } from './worker-run.ts';

const rollout = 'actor_rollout_ref.rollout';
const SAMPLED = [...VALIDATED, `${rollout}.val_kwargs.do_sample=true`, `${rollout}.val_kwargs.temperature=0.5`];

/** Old log-probs, or those of the reference, in micro-batches by tokens: 24 trajectories have more than 192 tokens. */
const OLD = [...RUN, `${rollout}.recompute_log_prob=true`];
const REFERENCE = [...RUN, 'actor_rollout_ref.actor.use_kl_loss=true'];
const scoringProbes = (block: string, settings: readonly string[]) =>
  probesOf(block, [
    ['log_prob_micro_batch_size_per_gpu', [null, 2], trainingRun, ...settings],
    ['log_prob_use_dynamic_bsz', [false, true], trainingRun, ...settings],
    [
      'log_prob_max_token_len_per_gpu',
      [192, 400],
      trainingRun,
      ...[...settings, `${block}.log_prob_use_dynamic_bsz=true`, `${rollout}.n=12`],
    ],
  ]);

export const rolloutProbes = [
  ...scoringProbes(rollout, OLD),
  ...scoringProbes('actor_rollout_ref.ref', REFERENCE),
  ...probesOf(rollout, [
    ['n', [3, 2], trainingRun, ...RUN],
    ['temperature', [1, 0.7], trainingRun, ...RUN],
    ['top_p', [1, 0.9], trainingRun, ...RUN],
    ['top_k', [-1, 5], trainingRun, ...RUN],
    ['do_sample', [true, false], trainingRun, ...RUN],
    ['slots', [8, 1], workerRun, ...ROLLED],
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
    ['activate_agent', [true, false], workerRun, ...ROLLED],
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
    ['max_turns', [3, 1], workerRun, ...ROLLED],
    ['single_response_max_tokens', [48, 8], workerRun, ...ROLLED],
    ['max_vllm_images', [128, 4], workerRun, ...ROLLED],
  ]),
];

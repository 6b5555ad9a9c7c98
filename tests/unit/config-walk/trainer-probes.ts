/** @file Probes of `trainer.*`. */
import { brokenRun, continuedRun, RUN, trainingRun, VALIDATED } from './observers.ts';
import { probesOf } from './probe.ts';
import { ROLLED, sharedRun, workerRun } from './worker-run.ts';

/** In the folder of a run that has done two steps. */
const THIRD = [...RUN, 'trainer.default_local_dir=run', 'trainer.total_training_steps=3'];

const SHARED = [...ROLLED, 'actor_rollout_ref.rollout.slots=1'];

export const trainerProbes = probesOf('trainer', [
  ['project_name', ['a', 'b'], trainingRun, ...RUN],
  ['experiment_name', ['a', 'b'], trainingRun, ...RUN],
  ['default_local_dir', ['a', 'b'], trainingRun, ...RUN],
  ['total_epochs', [1, 2], trainingRun, ...RUN, 'trainer.total_training_steps=null'],
  ['total_training_steps', [2, 1], trainingRun, ...RUN],
  ['seed', [1, 2], trainingRun, ...RUN, 'data.seed=1'],
  ['logger', [['console'], ['file']], trainingRun, ...RUN],
  ['save_freq', [-1, 1], trainingRun, ...RUN],
  ['test_freq', [-1, 1], trainingRun, ...VALIDATED],
  ['val_before_train', [true, false], trainingRun, ...VALIDATED],
  ['val_only', [false, true], trainingRun, ...VALIDATED],
  ['resume_mode', ['auto', 'disable'], continuedRun, ...THIRD],
  [
    'resume_from_path',
    ['run/global_step_1', 'run/global_step_2'],
    continuedRun,
    ...THIRD,
    'trainer.resume_mode=resume_path',
  ],
  ['max_actor_ckpt_to_keep', [null, 1], trainingRun, ...RUN, 'trainer.save_freq=1'],
  ['max_non_finite_updates', [5, 1], brokenRun, ...RUN],
  ['rollout_data_dir', [null, 'dumps'], trainingRun, ...RUN],
  ['validation_data_dir', [null, 'dumps'], trainingRun, ...VALIDATED],
  ['balance_batch', [true, false], trainingRun, ...RUN],
  ['nnodes', [1, 2], sharedRun, ...SHARED],
  ['n_gpus_per_node', [1, 2], sharedRun, ...SHARED],
  // No cluster is there.
  ['pool', ['local', 'ray'], workerRun, ...ROLLED, 'ray.address=ray://127.0.0.1:1', 'ray.start_seconds=1'],
]);

export { exitCodeOf, listenForInterrupt } from '@frame-thinker/core';
export { type BasePolicyOptions, trainBasePolicy } from './base-policy.ts';
export { type SftRowsOptions, trainOnRows } from './sft-rows.ts';
export { runTraining, type TrainOptions } from './train.ts';
export { readEvaluationRows, SYNTH_ROOT, synthDataset } from './training-data.ts';
export { criticInit, engineLine, rayOptions, regimesOf, startWorker, workerInit } from './worker-setup.ts';

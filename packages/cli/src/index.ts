export { evaluationConfig, evaluationData } from './evaluation/defaults.ts';
export { type FramesFrom, type RunEvaluationOptions, runEvaluation } from './evaluation/run-evaluation.ts';
export { type RunOptions, run } from './run.ts';

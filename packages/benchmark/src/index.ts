export * from './demonstrations.ts';
export * from './sft-curriculum.ts';
export * from './synth-dataset.ts';
export * from './synth-questions.ts';
export * from './synth-scene.ts';
export * from './synth-words.ts';
export * from './tiny-policy.ts';
export * from './token-sequence.ts';

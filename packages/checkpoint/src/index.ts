export * from './dtype.ts';
export * from './hf-folder.ts';
export * from './safetensors.ts';
export * from './training-checkpoint.ts';

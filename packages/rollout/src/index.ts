export type * from './policy-model.ts';
export { createScratch, sampleToken, type TokenDraw } from './sampler.ts';

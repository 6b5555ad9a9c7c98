export * from './config.ts';
export * from './extend-graph.ts';
export * from './names.ts';
export * from './positions.ts';
export * from './scorer.ts';
export * from './vision-encoder.ts';

/** @file What a sampled stack was busy with. */

export interface Frame {
  functionName: string;
  url: string;
}

/** `function name @ file`, any of them on the stack; the first rule that fits counts. */
const RULES: readonly (readonly [category: string, pattern: RegExp])[] = [
  ['collecting garbage', /^\(garbage collector\) @/],
  ['ONNX Runtime: making sessions', /^(OnnxruntimeSessionHandler|initOrt) @/],
  ['ONNX Runtime: running graphs', /@ .*onnxruntime-node.*backend\.js$/],
  [
    'graphs and their ONNX models, for new sessions',
    /^(compile|extendGraph|scoreGraph|buildModel) @|@ .*packages\/graph\/src\//,
  ],
  ['prompts of all rows: template, tokens', /@ .*trainer\/src\/prompt-check\.ts$/],
  ['configuration', /^loadConfig @/],
  ['reading rows', /@ .*trainer\/src\/(samples|data-files)\.ts$|benchmark\/src\//],
  ['packet index and facts of videos', /@ .*video\/src\/packet-index\.ts$|trainer\/src\/video-facts\.ts$/],
  ['video and images', /@ .*(video\/src\/|node-av|image-processor\.ts$|frame-library\.ts$)/],
  ['keys and values of the slots', /@ .*rollout\/src\/kv-cache\.ts$/],
  ['sampling of tokens', /@ .*rollout\/src\/sampler\.ts$/],
  ['weights, gradients, optimizer', /@ (wasm:.*|.*engine-common\/src\/.*|.*qwen-vl\/src\/weights\.ts)$/],
  ['agent loop and inputs of graphs', /@ .*(rollout|qwen-vl|agent-env)\/src\//],
  [
    'frames of the worker protocol',
    /@ .*(worker-pool\/src\/|policy-worker\/src\/thread\.ts$|checkpoint\/src\/safetensors\.ts$)/,
  ],
  [
    'rewards, advantages, losses',
    /@ .*(ccv-reward|algorithms)\/src\/|trainer\/src\/(actor-update|training-batch|scored-groups|group-advantages)\.ts$/,
  ],
  ['files of the run', /@ .*(trajectory-log|tracker|run-folder|run-checkpoints|checkpoint\/src\/.*)\.ts$/],
  ['loading modules', /@ (node:internal\/(modules|process\/esm_loader|bootstrap|source_map)|.*\/tsx\/)|^evaluate @$/],
];

/** Undefined: the thread was idle. @param stack from the innermost frame outwards */
export function categoryOf(stack: readonly Frame[]): string | undefined {
  if (stack[0]?.functionName === '(idle)') return undefined;
  const frames = stack.map(({ functionName, url }) => `${functionName} @ ${url}`.trim());
  return RULES.find(([, pattern]) => frames.some((frame) => pattern.test(frame)))?.[0] ?? 'everything else';
}

/** @file The loaded policy of a worker: weights, model programs, text side, frames. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { createEnvironmentRegistry, createReferenceInferEnvironment } from '@frame-thinker/agent-env';
import { openHfFolder, writeHfFolder } from '@frame-thinker/checkpoint';
import { type Environment, type Group, InputError, messageOf } from '@frame-thinker/core';
import { type ParameterSet, sizeOf } from '@frame-thinker/graph';
import {
  createScorer,
  createValueScorer,
  createVisionEncoder,
  initialiseValueHead,
  loadProcessor,
  loadWeights,
  type Processor,
  parameterSpecs,
  parseConfig,
  type QwenVLConfig,
  type ScoreRow,
  type Scorer,
  toDiskName,
  type ValueScorer,
  type VisionEncoder,
  valueParameterSpecs,
} from '@frame-thinker/qwen-vl';
import { createQwenPolicyModel, type QwenPolicyModel } from '@frame-thinker/rollout';
import { createFrameStore } from '@frame-thinker/video';
import type { BatchRow, Capabilities, EnvironmentSettings, WorkerInit } from '@frame-thinker/worker-pool';
import { FrameLibrary } from './frame-library.ts';
import { frameSource } from './frame-source.ts';
import { openEngine } from './open-engine.ts';
import { createSingleTurn } from './single-turn.ts';

const OPTIONAL_METHODS = ['zero_gradients', 'gradients_out', 'gradients_in', 'gradients_add', 'save', 'load'];

export interface Policy {
  readonly init: WorkerInit;
  readonly capabilities: Capabilities;
  readonly parameters: ParameterSet;
  readonly scorer: Scorer;
  /** In place of the scorer's work where the role is critic. */
  readonly critic: ValueScorer | undefined;
  readonly processor: Processor;
  readonly library: FrameLibrary;
  /** The decoder, made when it is first asked for. */
  decoder(slots: number): QwenPolicyModel;
  /** Images found, in order of position. */
  scoreRows(rows: readonly BatchRow[]): Promise<ScoreRow[]>;
  environment(settings: EnvironmentSettings, group: Pick<Group, 'sample' | 'answerOnly'>): Promise<Environment>;
  /** Writes an HF folder of the current weights, the other files copied from the one that was loaded. */
  exportTo(dir: string): Promise<void>;
  close(): Promise<void>;
}

function readConfig(path: string): QwenVLConfig {
  const file = join(path, 'config.json');
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch (error) {
    throw new InputError(`${path}: not a model folder: config.json cannot be read (${messageOf(error)})`);
  }
  try {
    return parseConfig(JSON.parse(text));
  } catch (error) {
    const problem =
      error instanceof SyntaxError ? `config.json: damaged: not JSON (${messageOf(error)})` : messageOf(error);
    // A syntax error quotes the text, line breaks included.
    throw new InputError(`${path}: ${problem.replace(/\s+/g, ' ')}`);
  }
}

async function readWeights(
  path: string,
  parameters: ParameterSet,
  initial?: ReadonlyMap<string, Float32Array>,
): Promise<void> {
  const folder = openHfFolder(path);
  try {
    const source = {
      names: () => folder.names,
      shape: (name: string) => folder.shape(name),
      read: (name: string) => folder.read(name),
    };
    await loadWeights(parameters, source, initial);
  } catch (error) {
    throw error instanceof InputError ? new InputError(`${path}: ${error.message}`) : error;
  } finally {
    folder.close();
  }
}

/** @throws InputError when the folder or the engine's provider is not usable. */
export async function loadPolicy(init: WorkerInit): Promise<Policy> {
  const config = readConfig(init.path);
  const engine = await openEngine(init.engine);
  const isCritic = init.role === 'critic';
  const specs = isCritic ? valueParameterSpecs(config) : parameterSpecs(config);
  const parameters = engine.parameters(specs, { training: init.training ?? true });
  await readWeights(init.path, parameters, isCritic ? initialiseValueHead(config, init.seed) : undefined);
  const processor = loadProcessor(init.path);
  const library = new FrameLibrary(
    createFrameStore(init.frameStoreBytes === undefined ? {} : { maxBytes: init.frameStoreBytes }),
    processor.images,
  );
  const vision: VisionEncoder = createVisionEncoder({ engine, parameters, config });
  const scorer = createScorer({ engine, parameters, config, vision });
  const critic = isCritic ? createValueScorer({ engine, parameters, config, vision }) : undefined;
  let decoder: QwenPolicyModel | undefined;
  let registry: ReturnType<typeof createEnvironmentRegistry> | undefined;

  return {
    init,
    parameters,
    scorer,
    critic,
    processor,
    library,
    capabilities: {
      engine: engine.capabilities.name,
      provider: engine.capabilities.provider,
      ...(engine.capabilities.note === undefined ? {} : { note: engine.capabilities.note }),
      parameters: specs.reduce((sum, { shape }) => sum + sizeOf(shape), 0),
      vocabSize: config.vocab,
      methods: isCritic ? OPTIONAL_METHODS : ['rollout', ...OPTIONAL_METHODS],
      visionIds: processor.banIds,
      eosIds: processor.eosIds,
    },

    decoder: (slots) => {
      decoder ??= createQwenPolicyModel({
        engine,
        parameters,
        config,
        vision,
        slots,
        images: (refs) => library.images(refs),
      });
      return decoder;
    },

    scoreRows: async (rows) => {
      const found = await library.images(rows.flatMap((row) => row.frames));
      let at = 0;
      return rows.map(({ ids, mask, frames, jumps, images = [] }) => {
        const shown = [
          ...frames.map(({ position }) => ({ position, image: found[at++]! })),
          ...library.inline(images).map((image, i) => ({ position: images[i]!.position, image })),
        ].sort((a, b) => a.position - b.position);
        return {
          ids,
          images: shown.map(({ image }) => image),
          scored: mask,
          ...(jumps ? { jumps: jumps.map(({ at: index, by }) => ({ index, by })) } : {}),
        };
      });
    },

    environment: (settings, { sample, answerOnly }) => {
      const { grammar, regimes, registry: modules, baseDir, framesFrom, compat } = settings;
      if (compat === 'reference')
        return Promise.resolve(createReferenceInferEnvironment({ frames: frameSource(library, framesFrom), regimes }));
      if (sample.envName === undefined || answerOnly) return Promise.resolve(createSingleTurn(grammar));
      registry ??= createEnvironmentRegistry({
        registry: modules,
        baseDir,
        options: { frames: frameSource(library, framesFrom), grammar, regimes },
      });
      return registry.create(sample.envName);
    },

    exportTo: async (dir) => {
      await writeHfFolder({
        dir,
        copyFrom: init.path,
        dtype: 'keep',
        tensors: specs.map(({ name, shape }) => ({ name: toDiskName(name), shape, read: () => parameters.read(name) })),
      });
    },

    close: async () => {
      await decoder?.close();
      await library.close();
      await engine.release();
    },
  };
}

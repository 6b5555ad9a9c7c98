/** @file The protocol's methods on a loaded policy. One call at a time. */
import { openActor, type TensorData, tensorOf, writeActorShards } from '@frame-thinker/checkpoint';
import type { AdamWOptions, SamplingOptions } from '@frame-thinker/core';
import { InputError, InvariantError } from '@frame-thinker/core';
import { rollout } from '@frame-thinker/rollout';
import {
  actorTensors,
  decodeAligned,
  decodeBatch,
  decodeCotangents,
  decodeGroups,
  decodeWeights,
  encodeAligned,
  encodeLogProbs,
  encodeTrajectories,
  encodeWeights,
  type ForwardOptions,
  fromWire,
  type JsonObject,
  type Request,
  readGradients,
  type ScoreOptions,
  type Tensors,
  take,
  toWire,
  type WeightsState,
  type WorkerInit,
  writeGradients,
} from '@frame-thinker/worker-pool';
import { loadPolicy, type Policy } from './policy.ts';
import { createCodec, createPrompter } from './prompts.ts';

type NamedTensor = readonly [string, TensorData];

export interface Answer {
  result: JsonObject;
  tensors?: NamedTensor[];
}

export interface Call {
  params: JsonObject;
  tensors: Tensors;
  /** Sends a part of the answer at once. */
  partial(params: JsonObject, tensors: NamedTensor[]): void;
}

/** Copies one parameter at a time, as it is asked for. */
function savedParameters(parameters: Policy['parameters']): WeightsState['parameters'] {
  return new Map(
    parameters.specs.map(({ name, shape }) => [
      name,
      {
        shape,
        get weight() {
          return parameters.read(name);
        },
        get expAvg() {
          return parameters.read(name, 'exp_avg');
        },
        get expAvgSq() {
          return parameters.read(name, 'exp_avg_sq');
        },
      },
    ]),
  );
}

type Handler = (policy: Policy, call: Call) => Promise<Answer> | Answer;

const handlers: Record<string, Handler> = {
  forward: async (policy, { params, tensors }) => {
    const { batch: _, ...rest } = params;
    const { trajectories } = decodeBatch(params.batch, tensors);
    const rows = await policy.scoreRows(trajectories);
    if (policy.critic) return { result: {}, tensors: [encodeAligned('values', await policy.critic.forward(rows))] };
    const scores = await policy.scorer.forward({ rows }, fromWire<ForwardOptions>(rest));
    return { result: {}, tensors: encodeLogProbs(scores) };
  },

  backward: async (policy, { params, tensors }) => {
    const { batch: _, ...rest } = params;
    const { trajectories } = decodeBatch(params.batch, tensors);
    const lengths = trajectories.map(({ ids }) => ids.length);
    const rows = await policy.scoreRows(trajectories);
    if (policy.critic) {
      const values = await policy.critic.backward(rows, decodeAligned(tensors, 'd_values', lengths));
      return { result: {}, tensors: [encodeAligned('values', values)] };
    }
    const cotangents = decodeCotangents(tensors, lengths);
    const scores = await policy.scorer.backward({ rows }, { ...fromWire<ScoreOptions>(rest), ...cotangents });
    return { result: {}, tensors: encodeLogProbs(scores) };
  },

  apply_update: ({ parameters }, { params }) => {
    const { lr, betas, eps, weightDecay, maxNorm } = fromWire<
      Omit<AdamWOptions, 'maxNorm'> & { maxNorm: number | null }
    >(params);
    const { gradNorm, applied } = parameters.adamw({
      lr,
      betas,
      eps,
      weightDecay,
      maxNorm: maxNorm ?? Number.POSITIVE_INFINITY,
    });
    return { result: { grad_norm: Number.isFinite(gradNorm) ? gradNorm : null, applied } };
  },

  zero_gradients: ({ parameters }) => {
    parameters.gradients.zero();
    return { result: {} };
  },

  gradients_out: ({ parameters }, { params: { path } }) => {
    const sums = parameters.gradients.read();
    if (typeof path !== 'string') return { result: {}, tensors: [['gradients', tensorOf(sums)]] };
    writeGradients(path, sums);
    return { result: {} };
  },

  gradients_in: ({ parameters }, { params: { paths }, tensors }) => {
    parameters.gradients.write(
      Array.isArray(paths) ? readGradients(paths.map(String)) : take(tensors, 'gradients', Float64Array),
    );
    return { result: {} };
  },

  gradients_add: ({ parameters }, { tensors }) => {
    const sums = parameters.gradients.read();
    const added = take(tensors, 'gradients', Float64Array);
    if (added.length !== sums.length)
      throw new InputError(`gradients: ${added.length} values for ${sums.length} parameters`);
    for (let i = 0; i < sums.length; i++) sums[i]! += added[i]!;
    return { result: {}, tensors: [['gradients', tensorOf(sums)]] };
  },

  rollout: async (policy, { params, tensors, partial }) => {
    const { rollout: limits, environment: settings, seed } = policy.init;
    if (policy.critic) throw new InputError('this worker is a critic: it does not roll out');
    if (!limits || !settings) throw new InputError('this worker was started without rollout and environment settings');
    const { library, processor } = policy;
    const groups = decodeGroups(params, tensors);
    const options = {
      model: policy.decoder(limits.slots),
      codec: createCodec(library, processor, settings),
      prompt: createPrompter(library, processor, settings),
      environment: (_: unknown, group: (typeof groups)[number]) => policy.environment(settings, group),
      limits,
      sampling: fromWire<SamplingOptions>(params.sampling),
      seed,
      groups,
    };
    for await (const { index, trajectories } of rollout(options)) {
      const encoded = encodeTrajectories(trajectories);
      partial({ group: index, ...encoded.params }, encoded.tensors);
    }
    return { result: { groups: groups.length } };
  },

  weights_out: ({ parameters }, { partial }) => {
    const state = { step: parameters.step, parameters: savedParameters(parameters) };
    for (const { params, tensors } of encodeWeights(state)) partial(params, tensors);
    return { result: { step: parameters.step } };
  },

  weights_part: (policy, { params, tensors }) => {
    const shapes = new Map(policy.parameters.specs.map(({ name, shape }) => [name, shape.join()]));
    for (const [name, { shape, weight, expAvg, expAvgSq }] of decodeWeights(params, tensors)) {
      if (shapes.get(name) !== shape.join())
        throw new InputError(`parameter ${name} [${shape}]: the model has ${shapes.get(name) ?? 'none of that name'}`);
      policy.parameters.write(name, weight);
      policy.parameters.writeMoment(name, 'exp_avg', expAvg);
      policy.parameters.writeMoment(name, 'exp_avg_sq', expAvgSq);
      policy.written.add(name);
    }
    return { result: {} };
  },

  weights_in: ({ parameters, written }, { params }) => {
    const missing = parameters.specs.filter(({ name }) => !written.has(name)).map(({ name }) => name);
    written.clear();
    if (missing.length > 0)
      throw new InputError(`the given state lacks ${missing.length} parameters: ${missing.join(', ')}`);
    parameters.step = Number(params.step);
    parameters.gradients.zero();
    return { result: {} };
  },

  save: async ({ parameters }, { params }) => {
    const { path, rank, worldSize } = fromWire<{ path: string; rank: number; worldSize: number }>(params);
    const state = { step: parameters.step, parameters: savedParameters(parameters) };
    await writeActorShards({ dir: path, rank, worldSize, ...actorTensors(state) });
    return { result: { step: state.step } };
  },

  load: ({ parameters }, { params }) => {
    const path = String(params.path);
    const { model, moments, close } = openActor(path);
    try {
      // All of it is checked before anything is written.
      for (const { name, shape } of parameters.specs) {
        const kinds = [
          [model, name],
          [moments, `${name}.exp_avg`],
          [moments, `${name}.exp_avg_sq`],
        ] as const;
        for (const [tensors, key] of kinds) {
          if (!tensors.names.includes(key)) throw new InputError(`${path}: lacks ${key}`);
          if (tensors.shape(key).join() !== shape.join())
            throw new InputError(`${path}: ${key} is [${tensors.shape(key)}], the model's is [${shape}]`);
        }
      }
      const more = model.names.find((name) => !parameters.specs.some((spec) => spec.name === name));
      if (more !== undefined) throw new InputError(`${path}: the model has no parameter ${more}`);
      for (const name of model.names) {
        parameters.write(name, model.read(name));
        for (const kind of ['exp_avg', 'exp_avg_sq'] as const)
          parameters.writeMoment(name, kind, moments.read(`${name}.${kind}`));
      }
    } finally {
      close();
    }
    parameters.step = Number(params.step);
    parameters.gradients.zero();
    return { result: {} };
  },

  export: async (policy, { params }) => {
    await policy.exportTo(String(params.path));
    return { result: {} };
  },
};

export interface PolicyService {
  /** @throws what the method throws; the service can be used on. */
  handle(request: Request, call: Omit<Call, 'params'>): Promise<Answer>;
}

export function createPolicyService(): PolicyService {
  let policy: Policy | undefined;
  return {
    handle: async ({ method, params }, call) => {
      if (method === 'init') {
        await policy?.close();
        policy = undefined;
        policy = await loadPolicy(fromWire<WorkerInit>(params));
        return { result: toWire(policy.capabilities) };
      }
      const handler = Object.hasOwn(handlers, method) ? handlers[method] : undefined;
      if (!handler)
        throw new InvariantError(`no method ${method}; there are init, health, ${Object.keys(handlers).join(', ')}`);
      if (!policy) throw new InvariantError(`${method} before init`);
      return handler(policy, { ...call, params });
    },
  };
}

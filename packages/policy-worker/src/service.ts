/** @file The protocol's methods on a loaded policy. One call at a time. */
import { type ActorTensors, openActor, type TensorData, tensorOf, writeActorShards } from '@frame-thinker/checkpoint';
import type { AdamWOptions, SamplingOptions } from '@frame-thinker/core';
import { InputError, InvariantError } from '@frame-thinker/core';
import { rollout } from '@frame-thinker/rollout';
import {
  addGradients,
  decodeAligned,
  decodeBatch,
  decodeCotangents,
  decodeGroups,
  encodeAligned,
  encodeLogProbs,
  encodeTrajectories,
  type ForwardOptions,
  fromWire,
  type JsonObject,
  type Request,
  readGradients,
  type ScoreOptions,
  type Tensors,
  take,
  toWire,
  type WorkerInit,
  writeGradientParts,
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

/** What a checkpoint holds; copies one parameter at a time, as it is asked for. */
function actorTensors(parameters: Policy['parameters']): ActorTensors {
  return {
    model: parameters.specs.map(({ name, shape }) => ({ name, shape, read: () => parameters.read(name) })),
    moments: parameters.specs.map(({ name, shape }) => ({
      ...{ name, shape },
      expAvg: () => parameters.read(name, 'exp_avg'),
      expAvgSq: () => parameters.read(name, 'exp_avg_sq'),
    })),
  };
}

const pathsOf = (given: unknown): string[] | undefined => (Array.isArray(given) ? given.map(String) : undefined);

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

  gradients_out: ({ parameters }, { params }) => {
    const sums = parameters.gradients.read();
    const paths = pathsOf(params.paths);
    if (!paths) return { result: {}, tensors: [['gradients', tensorOf(sums)]] };
    writeGradientParts(paths, sums);
    return { result: {} };
  },

  gradients_add: (_, { params }) => {
    writeGradients(String(params.path), addGradients(pathsOf(params.paths) ?? []));
    return { result: {} };
  },

  gradients_in: ({ parameters }, { params, tensors }) => {
    const paths = pathsOf(params.paths);
    parameters.gradients.write(paths ? readGradients(paths) : take(tensors, 'gradients', Float64Array));
    return { result: {} };
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

  save: async ({ parameters }, { params }) => {
    const { path, rank, worldSize } = fromWire<{ path: string; rank: number; worldSize: number }>(params);
    await writeActorShards({ dir: path, rank, worldSize, ...actorTensors(parameters) });
    return { result: { step: parameters.step } };
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

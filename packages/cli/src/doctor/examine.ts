/** @file What is there, and what each gap costs. */
import { existsSync, statfsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { availableParallelism, cpus, freemem, totalmem } from 'node:os';
import { messageOf } from '@frame-thinker/core';
import { chooseBackend } from '@frame-thinker/engine-tfjs';
import { connectRay, RAY_VERSION } from '@frame-thinker/ray-client';
import { findFfmpeg } from '@frame-thinker/video';
import { probe, probeModule, resolveFrom } from './probe.ts';

export interface Finding {
  name: string;
  /** `gap`: something works less well or not at all; `missing`: training can't run. */
  state: 'ok' | 'gap' | 'missing';
  found: string;
  /** What a gap costs and how to close it. */
  cost?: string;
}

const gib = (bytes: number): string => `${(bytes / 2 ** 30).toFixed(1)} GiB`;
const good = (name: string, found: string): Finding => ({ name, state: 'ok', found });
const gap = (name: string, found: string, cost: string): Finding => ({ name, state: 'gap', found, cost });
const missing = (name: string, found: string, cost: string): Finding => ({ name, state: 'missing', found, cost });

/** How long a cluster may take to answer. */
const REACH_MS = 10_000;
const LEAST_NODE = [20, 19] as const;

function node(): Finding {
  const [major = 0, minor = 0] = process.versions.node.split('.').map(Number);
  const enough = major > LEAST_NODE[0] || (major === LEAST_NODE[0] && minor >= LEAST_NODE[1]);
  const found = `${process.versions.node} (${process.platform}-${process.arch})`;
  return enough ? good('Node.js', found) : missing('Node.js', found, 'Node.js >= 20.19 is needed');
}

function cores(): Finding {
  const count = availableParallelism();
  const found = `${count} (${cpus()[0]?.model.trim() ?? 'unknown model'})`;
  return count >= 2
    ? good('cores', found)
    : gap('cores', found, 'training is slower: the times in the documentation are those of 2 cores');
}

const ENOUGH_MEMORY = 4 * 2 ** 30;
function memory(): Finding {
  const found = `${gib(totalmem())}, ${gib(freemem())} free`;
  return totalmem() >= ENOUGH_MEMORY
    ? good('memory', found)
    : gap('memory', found, 'training may run out of memory: lower actor_rollout_ref.rollout.slots');
}

function space(name: string, path: string, least: number, cost: string): Finding {
  if (!existsSync(path)) return gap(name, `${path} is not there`, cost);
  const { bavail, bsize } = statfsSync(path);
  const found = `${gib(bavail * bsize)} free in ${path}`;
  return bavail * bsize >= least ? good(name, found) : gap(name, found, cost);
}

const RUNTIME_COST = {
  'ONNX Runtime':
    'engine.name: onnx, the default, can not be used: install again with pnpm install, or set engine.name=tfjs',
  'TensorFlow.js': 'engine.name: tfjs can not be used; ONNX Runtime is the default',
};

async function onnx(): Promise<Finding> {
  const name = 'ONNX Runtime';
  const path = resolveFrom('@frame-thinker/engine-onnx', 'onnxruntime-node');
  if (path === undefined) return gap(name, 'onnxruntime-node is not installed', RUNTIME_COST[name]);
  const result = await probeModule(
    path,
    "m.default.env.versions.node + ', providers in it: ' + m.default.listSupportedBackends().filter((b) => b.bundled).map((b) => b.name).join(', ')",
  );
  return result.ok ? good(name, result.text) : gap(name, result.why, RUNTIME_COST[name]);
}

async function tfjs(): Promise<Finding> {
  const name = 'TensorFlow.js';
  let chosen: ReturnType<typeof chooseBackend>;
  try {
    chosen = chooseBackend('auto');
  } catch (error) {
    return gap(name, messageOf(error), RUNTIME_COST[name]);
  }
  const { backend, path, note } = chosen;
  if (backend === 'wasm') return gap(name, `on WebAssembly: ${note}`, 'engine.name: tfjs is slow, on one thread');
  const entry = createRequire(`${path}/package.json`).resolve(path);
  const result = await probeModule(entry, 'm.default.backend().binding.TF_Version');
  return result.ok
    ? good(name, `TensorFlow ${result.text} on the ${backend === 'gpu' ? 'GPU' : 'CPU'}`)
    : gap(name, result.why, RUNTIME_COST[name]);
}

/** One engine is enough to train; without any, both are what is missing. */
async function engines(): Promise<Finding[]> {
  const found = await Promise.all([onnx(), tfjs()]);
  const none = found.every(({ cost }) => Object.values(RUNTIME_COST).some((text) => text === cost));
  return none ? found.map((finding) => ({ ...finding, state: 'missing' })) : found;
}

async function nodeAv(): Promise<Finding> {
  const name = 'node-av';
  const cost = 'no video can be read or rendered in process: install again with pnpm install';
  const path = resolveFrom('@frame-thinker/video', 'node-av');
  if (path === undefined) return missing(name, 'not installed', cost);
  const result = await probeModule(path, "'FFmpeg ' + m.getFFmpegInfo().version");
  return result.ok ? good(name, result.text) : missing(name, result.why, cost);
}

async function ffmpeg(): Promise<Finding> {
  const name = 'ffmpeg executable';
  const cost =
    'the second decoder can not be used; training does not need it. Install ffmpeg with your system, or let ffmpeg-static download it';
  const executable = await findFfmpeg();
  if (executable === undefined) return gap(name, "neither ffmpeg-static's nor the system's", cost);
  const result = await probe(executable.path, ['-hide_banner', '-version']);
  if (!result.ok) return gap(name, `${executable.path}: ${result.why}`, cost);
  return good(name, `${result.text.split(' Copyright')[0]} (${executable.source}: ${executable.path})`);
}

/** Ray is needed where a cluster runs; to train on one, its address is enough. */
async function ray(address: string | undefined): Promise<Finding> {
  const name = 'Ray';
  if (address !== undefined) {
    try {
      const client = await connectRay({ address, graceSeconds: 0, connectMs: REACH_MS });
      const { rayVersion, pythonVersion } = client.info;
      const nodes = (await client.nodes()).filter(({ Alive }) => Alive).length;
      await client.close();
      return good(name, `${address}: Ray ${rayVersion} on Python ${pythonVersion}, ${nodes} nodes`);
    } catch (error) {
      const cost = `trainer.pool: ray can not be used with ray.address=${address}`;
      return gap(name, messageOf(error).trim().split('\n')[0]!, cost);
    }
  }
  const result = await probe('python3', ['-c', 'import ray; print(ray.__version__)']);
  return result.ok
    ? good(name, `${result.text} is installed; --ray-address ray://host:10001 looks for a cluster`)
    : gap(
        name,
        result.why,
        `no cluster can be started on this machine: pip install "ray[client]==${RAY_VERSION}"; training uses local processes, or a cluster elsewhere (trainer.pool: ray)`,
      );
}

/** Looks at this machine and this installation. */
export async function examine({ rayAddress }: { rayAddress?: string | undefined } = {}): Promise<Finding[]> {
  const [runtimes, video, executable, cluster] = await Promise.all([engines(), nodeAv(), ffmpeg(), ray(rayAddress)]);
  return [
    node(),
    cores(),
    memory(),
    ...runtimes,
    video,
    executable,
    cluster,
    space(
      'disk',
      process.cwd(),
      2 * 2 ** 30,
      'videos and checkpoints may not fit: a run that finds no space ends with what it has saved',
    ),
    space('shared memory', '/dev/shm', 2 ** 28, 'workers hand data over through the temp folder, which is slower'),
  ];
}

export function printFindings(findings: readonly Finding[]): string {
  const width = Math.max(...findings.map(({ name }) => name.length)) + 2;
  const indent = ' '.repeat(width + 9);
  const lines = findings.flatMap(({ name, state, found, cost }) => [
    `${state.padEnd(9)}${name.padEnd(width)}${found}`,
    ...(cost === undefined ? [] : [`${indent}→ ${cost}`]),
  ]);
  const absent = findings.filter(({ state }) => state === 'missing').map(({ name }) => name);
  const verdict =
    absent.length > 0
      ? `Training can't run: ${absent.join(', ')}.`
      : 'Training can run: pnpm train --config configs/frame_thinker.yaml';
  return [...lines, '', verdict].join('\n');
}

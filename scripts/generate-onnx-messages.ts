/**
 * @file Generates packages/engine-onnx/src/onnx_pb.ts from the onnx.proto that PyPI's `onnx` wheel carries.
 * Needs python3 with pip. Usage: npx tsx scripts/generate-onnx-messages.ts
 */
import { execFileSync } from 'node:child_process';
import { copyFileSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';

const ONNX_VERSION = '1.23.2';
/** Parts of the format that graphs of the engine never use. */
const UNUSED = [
  'TrainingInfoProto',
  'FunctionProto',
  'SparseTensorProto',
  'TensorAnnotation',
  'NodeDeviceConfigurationProto',
  'DeviceConfigurationProto',
  'IntIntListEntryProto',
  'ShardingSpecProto',
  'ShardedDimProto',
  'SimpleShardedDimProto',
  'OperatorStatus',
  'TensorProto.Segment',
  'TypeProto.Sequence',
  'TypeProto.Map',
  'TypeProto.Optional',
  'TypeProto.SparseTensor',
  'TypeProto.Opaque',
];

/** `export enum` as a constant object and a union type: the repository is written in erasable syntax only. */
function erasable(source: string): string {
  return source.replaceAll(/^export enum (\w+) \{(.*?)^\}/gms, (_, name: string, body: string) => {
    const members = body.replaceAll(/^( +\w+) = (\d+),/gm, '$1: $2,');
    return `export const ${name} = {${members}} as const;\nexport type ${name} = (typeof ${name})[keyof typeof ${name}];`;
  });
}

const root = resolve(import.meta.dirname, '..');
const binary = (name: string): string => join(root, 'node_modules/.bin', name);
const folder = mkdtempSync(join(tmpdir(), 'onnx-messages-'));
const run = (command: string, args: readonly string[]): void => {
  execFileSync(command, args, { cwd: folder, stdio: 'inherit' });
};
try {
  run('python3', ['-m', 'pip', 'download', '--quiet', '--no-deps', '--dest', '.', `onnx==${ONNX_VERSION}`]);
  const wheel = readdirSync(folder).find((name) => name.endsWith('.whl'));
  if (!wheel) throw new Error('pip brought no wheel of onnx');
  run('python3', ['-m', 'zipfile', '-e', wheel, 'wheel']);
  copyFileSync(join(folder, 'wheel/onnx/onnx.proto'), join(folder, 'onnx.proto'));
  // An image without source info drops the comments: the format's own documentation stays with the format.
  run(binary('buf'), ['build', '--path', 'onnx.proto', '--exclude-source-info', '--output', 'onnx.binpb']);
  const template = {
    version: 'v2',
    inputs: [{ binary_image: 'onnx.binpb', exclude_types: UNUSED.map((name) => `onnx.${name}`) }],
    plugins: [{ local: binary('protoc-gen-es'), out: 'generated', opt: ['target=ts', 'import_extension=ts'] }],
  };
  run(binary('buf'), ['generate', '--template', JSON.stringify(template)]);
  const messages = readFileSync(join(folder, 'generated/onnx_pb.ts'), 'utf8');
  writeFileSync(
    join(root, 'packages/engine-onnx/src/onnx_pb.ts'),
    `// SPDX-License-Identifier: Apache-2.0\n// From onnx.proto of ONNX ${ONNX_VERSION}.\n${erasable(messages)}`,
  );
} finally {
  rmSync(folder, { recursive: true, force: true });
}

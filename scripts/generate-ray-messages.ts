/**
 * @file Generates packages/ray-client/src/ray_client.proto and ray_client_pb.ts from the Ray that a Python has installed: Ray
 * ships the messages as a descriptor only, so the .proto is written from it, compiled, and compared with it.
 * Usage: npx tsx scripts/generate-ray-messages.ts [python]   (default .venv/bin/python)
 */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';

/** `export enum` as a constant object and a union type: the repository is written in erasable syntax only. */
function erasable(source: string): string {
  return source.replaceAll(/^export enum (\w+) \{(.*?)^\}/gms, (_, name: string, body: string) => {
    const members = body.replaceAll(/^( +\w+) = (\d+),/gm, '$1: $2,');
    return `export const ${name} = {${members}} as const;\nexport type ${name} = (typeof ${name})[keyof typeof ${name}];`;
  });
}

const root = resolve(import.meta.dirname, '..');
const target = (name: string): string => join(root, 'packages/ray-client/src', name);
const binary = (name: string): string => join(root, 'node_modules/.bin', name);
const python = process.argv[2] ?? join(root, '.venv/bin/python');
const script = join(import.meta.dirname, 'ray_client_proto.py');
const folder = mkdtempSync(join(tmpdir(), 'ray-messages-'));
const run = (command: string, args: readonly string[]): void => {
  execFileSync(command, args, { cwd: folder, stdio: 'inherit' });
};
try {
  const proto = execFileSync(python, [script, 'print'], { encoding: 'utf8' });
  writeFileSync(join(folder, 'ray_client.proto'), proto);
  run(binary('buf'), ['build', '--path', 'ray_client.proto', '--exclude-source-info', '--output', 'ray.binpb']);
  run(python, [script, 'compare', join(folder, 'ray.binpb')]);
  const template = {
    version: 'v2',
    inputs: [{ binary_image: 'ray.binpb' }],
    plugins: [{ local: binary('protoc-gen-es'), out: 'generated', opt: ['target=ts', 'import_extension=ts'] }],
  };
  run(binary('buf'), ['generate', '--template', JSON.stringify(template)]);
  const messages = readFileSync(join(folder, 'generated/ray_client_pb.ts'), 'utf8');
  const version = /^\/\/ From Ray (\S+)\.$/m.exec(proto)?.[1];
  writeFileSync(target('ray_client.proto'), proto);
  writeFileSync(
    target('ray_client_pb.ts'),
    `// SPDX-License-Identifier: Apache-2.0\n${erasable(messages)}
/** The Ray that the messages are from. */
export const RAY_VERSION = '${version}';
`,
  );
} finally {
  rmSync(folder, { recursive: true, force: true });
}

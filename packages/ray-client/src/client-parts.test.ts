/** @file What needs no cluster: addresses, versions, archives. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { findToken, parseAddress } from './address.ts';
import { connectRay } from './connect.ts';
import { RayConnectionError, RayRuntimeEnvError, RayVersionError } from './errors.ts';
import { RAY_VERSION } from './ray_client_pb.ts';
import { prepareRuntimeEnv } from './runtime-env.ts';
import { checkVersion } from './version.ts';
import { writeZip } from './zip.ts';

const folder = mkdtempSync(join(tmpdir(), 'ray-client-'));
afterAll(() => rmSync(folder, { recursive: true }));

describe('a cluster', () => {
  it('is found by its address', () => {
    expect(parseAddress('ray://head')).toBe('head:10001');
    expect(parseAddress('ray://10.0.0.1:7/')).toBe('10.0.0.1:7');
    expect(parseAddress('ray://[::1]:7')).toBe('[::1]:7');
    for (const wrong of ['head:10001', 'ray://', 'ray://a:b', 'ray://a:70000', 'ray://a/b'])
      expect(() => parseAddress(wrong), wrong).toThrow(/expected ray:\/\/host:port/);
  });

  it('is opened by the token that Ray would find', () => {
    const path = join(folder, 'token');
    writeFileSync(path, 'from a file\n');
    expect(findToken({ RAY_AUTH_TOKEN: 'x' })).toBeUndefined();
    expect(findToken({ RAY_AUTH_MODE: 'token', RAY_AUTH_TOKEN: 'x' })).toBe('x');
    expect(findToken({ RAY_AUTH_MODE: 'token', RAY_AUTH_TOKEN_PATH: path })).toBe('from a file');
    expect(() => findToken({ RAY_AUTH_MODE: 'token', RAY_AUTH_TOKEN_PATH: `${path}-no` })).toThrow(/there is no token/);
  });

  it('takes no token that a header can not hold, and the error does not show it', async () => {
    for (const token of ['secret\n', 'sec ret', 'secrét', '']) {
      const error = await connectRay({ address: 'ray://127.0.0.1:1', token }).catch((error: unknown) => error);
      expect(error).toBeInstanceOf(RayConnectionError);
      expect((error as Error).message).toMatch(/^the token is empty, or has/);
    }
  });

  it('of another version is refused or warned of', () => {
    const warnings: string[] = [];
    const check = (version: string) => checkVersion(version, (text) => warnings.push(text));
    check(RAY_VERSION);
    check(RAY_VERSION.replace(/\d+$/, '99'));
    expect(warnings).toEqual([]);
    check('2.9.3');
    expect(warnings.join()).toMatch(/runs Ray 2\.9\.3, this client speaks the protocol of Ray 2\.\d+/);
    expect(() => check('3.0.0')).toThrow(RayVersionError);
  });
});

describe('a working directory', () => {
  const entries = [
    { name: 'a/é.txt', data: Buffer.from('text '.repeat(100)) },
    { name: 'run', data: Buffer.from('#!/bin/sh\n'), executable: true },
    { name: 'empty', data: new Uint8Array(0) },
  ];
  it('is packed as Python unpacks it', () => {
    const path = join(folder, 'files.zip');
    writeFileSync(path, writeZip(entries));
    const script = `
import json, sys, zipfile
archive = zipfile.ZipFile(sys.argv[1])
print(json.dumps([[i.filename, archive.read(i).decode(), i.external_attr >> 16, archive.testzip()] for i in archive.infolist()]))`;
    const read = JSON.parse(execFileSync('python3', ['-c', script, path], { encoding: 'utf8' }));
    expect(read).toEqual([
      ['a/é.txt', 'text '.repeat(100), 0o100644, null],
      ['run', '#!/bin/sh\n', 0o100755, null],
      ['empty', '', 0o100644, null],
    ]);
  });

  it('has a name by what it holds, in any order', () => {
    const { fields, upload } = prepareRuntimeEnv({ workingDir: entries, envVars: { A: 'b' } });
    expect(fields).toEqual({ working_dir: upload?.uri, env_vars: { A: 'b' } });
    expect(prepareRuntimeEnv({ workingDir: [...entries].reverse() }).upload?.uri).toBe(upload?.uri);
    expect(prepareRuntimeEnv({ workingDir: entries.slice(1) }).upload?.uri).not.toBe(upload?.uri);
    expect(prepareRuntimeEnv({ workingDir: 'https://x/y.zip' })).toEqual({
      fields: { working_dir: 'https://x/y.zip' },
    });
    writeFileSync(join(folder, 'one.txt'), 'one');
    const packed = prepareRuntimeEnv({ workingDir: folder }).upload!.data;
    expect(Buffer.from(packed).toString('latin1')).toContain('one.txt');
  });

  it('that is not there is an error of the runtime environment, with its name', () => {
    const missing = join(folder, 'missing');
    expect(() => prepareRuntimeEnv({ workingDir: missing })).toThrow(RayRuntimeEnvError);
    expect(() => prepareRuntimeEnv({ workingDir: missing })).toThrow(`the working directory ${missing} can't be read`);
  });
});

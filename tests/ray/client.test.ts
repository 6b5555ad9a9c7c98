import { execFileSync } from 'node:child_process';
import { readlinkSync } from 'node:fs';
import { networkInterfaces } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  connectRay,
  type LogEntry,
  ObjectRef,
  PythonFloat,
  PythonTuple,
  pythonModule,
  pythonSource,
  RAY_VERSION,
  RayActorDiedError,
  type RayClient,
  RayConnectionError,
  RayPythonError,
  RayTaskCancelledError,
  RayTaskError,
  RayTimeoutError,
  RayUnschedulableError,
  RayValueError,
  RayWorkerCrashedError,
} from '@frame-thinker/ray-client';
import { afterAll, beforeAll, beforeEach, describe, expect, inject, it } from 'vitest';
import { processesOf } from './cluster.ts';

const ray = inject('ray');
const address = 'address' in ray ? ray.address : '';
beforeEach((context) => {
  if ('missing' in ray) context.skip(ray.missing);
});

const SOURCE = `
import os, threading, time

class OwnError(ValueError):
    pass

class PickyError(Exception):
    def __init__(self, a, b):
        super().__init__(f'{a}-{b}')

class LockedError(Exception):
    def __init__(self, text):
        super().__init__(text)
        self.lock = threading.Lock()

class MadeError(Exception):
    def __reduce__(self):
        return make_error, ('other',)

def make_error(text):
    return MadeError(text)

def describe(value):
    return [type(value).__name__, repr(value)]

def echo(value):
    return value

def three():
    return 1, 'two', b'3'

def fail(kind):
    if kind == 'own': raise OwnError('mine', 7)
    if kind == 'picky': raise PickyError(1, 2)
    if kind == 'locked': raise LockedError('why\\nso')
    if kind == 'made': raise MadeError('why')
    if kind == 'lines': raise RuntimeError('first\\nsecond')
    if kind == 'crash': os._exit(3)
    if kind == 'object': return object()
    raise ValueError('why: it is so')

def nap(seconds):
    time.sleep(seconds)
    return seconds

class Counter:
    def __init__(self, start=0):
        self.n = start
    def add(self, k):
        print('added', k, flush=True)
        self.n += k
        return self.n
    def nap(self, seconds):
        time.sleep(seconds)
        return self.n
    def large(self, seconds, size):
        time.sleep(seconds)
        return bytes(size)
    def pid(self):
        return os.getpid()
    def die(self):
        os._exit(1)
    def fail(self):
        raise KeyError('no such key')

class Broken:
    def __init__(self, picky=False):
        if picky: raise PickyError('not even', 'born')
        raise OwnError('not even born')
    def hello(self):
        return 1
`;

describe('ray-client on a cluster', () => {
  let client: RayClient;
  const logs: LogEntry[] = [];
  const warnings: string[] = [];
  const remote = async (name: string, ...args: unknown[]): Promise<ObjectRef> =>
    (await client.function(pythonSource(SOURCE, name))).remote(args);
  const run = async (name: string, ...args: unknown[]): Promise<unknown> => client.get(await remote(name, ...args));
  const counter = async (...options: Parameters<Awaited<ReturnType<RayClient['actorClass']>>['create']>) =>
    (await client.actorClass(pythonSource(SOURCE, 'Counter'))).create(...options);

  beforeAll(async () => {
    if ('missing' in ray) return;
    client = await connectRay({
      address,
      namespace: 'tests',
      runtimeEnv: {
        workingDir: [
          { name: 'shipped/__init__.py', data: Buffer.from('') },
          {
            name: 'shipped/code.py',
            data: Buffer.from('import os\ndef where(): return [open("note.txt").read(), os.environ["NOTE"]]\n'),
          },
          { name: 'note.txt', data: Buffer.from('é') },
        ],
        envVars: { NOTE: 'of the session' },
      },
      onLog: (entry) => logs.push(entry),
      onWarning: (message) => warnings.push(message),
    });
  });
  afterAll(async () => {
    await client?.close();
  });

  it('is reached by loopback only', () => {
    expect(Object.keys(networkInterfaces())).toEqual(['lo']);
    const processes = 'folder' in ray ? processesOf(ray.folder) : [];
    expect(processes.length).toBeGreaterThan(5);
    const own = readlinkSync('/proc/self/ns/net');
    for (const pid of processes) expect(readlinkSync(`/proc/${pid}/ns/net`)).toBe(own);
    // Ray listens on every interface that there is.
    expect(execFileSync('ss', ['-Hltn'], { encoding: 'utf8' })).toMatch(/:10001\s/);
  });

  it('says what the cluster runs', async () => {
    expect(client.info).toMatchObject({ rayVersion: RAY_VERSION });
    expect(client.info.pythonVersion).toMatch(/^3\.\d+\.\d+$/);
    expect((await client.nodes()).filter(({ Alive }) => Alive)).toHaveLength(2);
    expect(await client.clusterResources()).toMatchObject({ CPU: 4, head: 4, other: 4 });
    expect(await client.availableResources()).toHaveProperty('CPU');
  });

  it('puts and gets values of every kind', async () => {
    const values = {
      none: null,
      flags: [true, false],
      numbers: [0, -1, 255, 2 ** 31, -(2 ** 40), 0.5, -0, Number.POSITIVE_INFINITY],
      large: [2n ** 70n, -(2n ** 64n)],
      texts: ['', 'é\n"', '𝄞'],
      bytes: Uint8Array.of(0, 255),
      set: new Set(['a', 1]),
      nested: [[], {}, { __proto__x: { constructor: 1 } }],
      keyed: new Map<string | number, unknown>([
        [1, 'one'],
        ['two', 2],
      ]),
    };
    const back = (await client.get(await client.put(values))) as typeof values;
    expect(Object.keys(back)).toEqual(Object.keys(values));
    for (const key of Object.keys(values) as (keyof typeof values)[]) {
      if (key === 'nested') expect(JSON.stringify(back[key])).toBe(JSON.stringify(values[key]));
      else expect(back[key], key).toEqual(values[key]);
    }
    expect(await run('describe', 3)).toEqual(['int', '3']);
    expect(await run('describe', new PythonFloat(3))).toEqual(['float', '3.0']);
    expect(await run('describe', new PythonTuple(1, 'a'))).toEqual(['tuple', "(1, 'a')"]);
    await expect(client.put(new Date(0))).rejects.toThrow(/a Date can't be sent/);
    await expect(client.put(() => 1)).rejects.toThrow(RayValueError);
  });

  it('moves large objects in chunks, several at a time', async () => {
    const sizes = [5 * 2 ** 20, 5 * 2 ** 20 - 7, 12_000_003, 1];
    const all = sizes.map((size, i) => Uint8Array.from({ length: size }, (_, k) => (k * 31 + (k >> 13) + i) & 255));
    const refs = await Promise.all(all.map((bytes) => client.put(bytes)));
    const back = await Promise.all(refs.map((ref) => client.get(ref)));
    for (const [i, bytes] of all.entries()) expect(Buffer.compare(back[i] as Uint8Array, bytes)).toBe(0);
    const [echoed] = await Promise.all([run('echo', all[2]), run('echo', all[0])]);
    expect(Buffer.compare(echoed as Uint8Array, all[2]!)).toBe(0);
    await client.release(...refs);
    await expect(client.get(refs[0]!)).rejects.toThrow(/does not hold the object/);
  });

  it('runs functions of source and of modules, with references for arguments', async () => {
    const ref = await client.put({ a: [1, 2] });
    expect(await run('describe', ref)).toEqual(['dict', "{'a': [1, 2]}"]);
    // Inside of another value a reference stays one.
    const inside = (await run('echo', [ref])) as unknown[];
    expect(inside[0]).toBeInstanceOf(ObjectRef);
    expect(JSON.stringify(await client.get(inside[0] as ObjectRef))).toBe('{"a":[1,2]}');
    const three = await client.function(pythonSource(SOURCE, 'three'));
    const parts = await three.remoteAll([], { numReturns: 3 });
    expect(await Promise.all(parts.map((part) => client.get(part)))).toEqual([1, 'two', Uint8Array.of(51)]);
    const dedent = await client.function(pythonModule('textwrap', 'dedent'));
    expect(await client.get(await dedent.remote(['  a\n  b']))).toBe('a\nb');
    const where = await client.function(pythonModule('shipped.code', 'where'));
    expect(await client.get(await where.remote([], { resources: { other: 1 } }))).toEqual(['é', 'of the session']);
    const own = await where.remote([], { envVars: { NOTE: 'of the task' } });
    expect(await client.get(own)).toEqual(['é', 'of the task']);
    expect(() => pythonSource('', 'a b')).toThrow(/not a Python name/);
  });

  it('gives typed errors with the traceback of Python', async () => {
    const failed = await run('fail', 'value').catch((error: unknown) => error);
    expect(failed).toBeInstanceOf(RayTaskError);
    expect(failed).toMatchObject({ type: 'builtins.ValueError', message: 'why: it is so' });
    expect((failed as RayTaskError).traceback).toMatch(/Traceback.*in fail.*ValueError: why: it is so/s);
    expect(await run('fail', 'own').catch((error: unknown) => error)).toMatchObject({
      type: 'source_of_fail.OwnError',
      message: 'mine, 7',
    });
    expect(await run('fail', 'lines').catch((error: unknown) => error)).toMatchObject({ message: 'first\nsecond' });
    // Exceptions that no pickle holds, or that can't be read from it again.
    for (const [kind, message] of [
      ['picky', '1-2'],
      ['locked', 'why\nso'],
      ['made', 'why'],
    ]) {
      const error = await run('fail', kind).catch((error: unknown) => error);
      expect(error).toBeInstanceOf(RayTaskError);
      const name = `${kind![0]!.toUpperCase()}${kind!.slice(1)}Error`;
      expect(error).toMatchObject({ type: `source_of_fail.${name}`, message });
      expect((error as RayTaskError).traceback).toMatch(/in fail\n.*source_of_fail/s);
    }
    await expect(run('fail', 'object')).rejects.toThrow(RayValueError);
    await expect(run('fail', 'object')).rejects.toThrow(/builtins\.object/);
    const crashing = await client.function(pythonSource(SOURCE, 'fail'));
    const crashed = await crashing.remote(['crash'], { maxRetries: 0 });
    await expect(client.get(crashed)).rejects.toThrow(RayWorkerCrashedError);
    await expect(run('three', 'too', 'many')).rejects.toMatchObject({ type: 'builtins.TypeError' });
    const broken = await (await client.actorClass(pythonSource(SOURCE, 'Broken'))).create();
    const unborn = await broken.call('hello').catch((error: unknown) => error);
    expect(unborn).toBeInstanceOf(RayActorDiedError);
    expect((unborn as Error).message).toMatch(/not even born/);
    const picky = await (await client.actorClass(pythonSource(SOURCE, 'Broken'))).create([true]);
    const alsoUnborn = await picky.call('hello').catch((error: unknown) => error);
    expect(alsoUnborn).toBeInstanceOf(RayActorDiedError);
    expect((alsoUnborn as Error).message).toMatch(/^The actor died .*PickyError: not even-born/s);
    const wrong = await client.function(pythonSource('def g(): return 1', 'missing')).catch((error: unknown) => error);
    expect(wrong).toBeInstanceOf(RayPythonError);
    expect(wrong).toMatchObject({ type: 'builtins.KeyError' });
    await expect((await client.function(pythonModule('math', 'factorial'))).remote([3])).rejects.toThrow(
      /isn't a function/,
    );
  });

  it('waits, with a timeout, and cancels', async () => {
    const [quick, slow] = [await remote('nap', 0), await remote('nap', 60)];
    const { ready, rest } = await client.wait([slow, quick]);
    expect([ready.map(({ hex }) => hex), rest.map(({ hex }) => hex)]).toEqual([[quick.hex], [slow.hex]]);
    expect((await client.wait([slow], { timeoutMs: 50 })).ready).toEqual([]);
    await expect(client.get(slow, { timeoutMs: 50 })).rejects.toThrow(RayTimeoutError);
    await client.cancel(slow, { force: true });
    await expect(client.get(slow)).rejects.toThrow(RayTaskCancelledError);
  });

  it('goes on after a reference that is not held was given, and after the release of what a get still waits for', async () => {
    const released = await client.put(1);
    await client.release(released);
    const other = await connectRay({ address });
    const foreign = await other.put(1);
    for (const wrong of [released, [released], foreign])
      await expect(run('echo', wrong)).rejects.toThrow(RayValueError);
    await expect(client.wait([released])).rejects.toThrow(RayValueError);
    await other.close();
    const present = await client.put(1);
    await expect(client.wait([present], { numReturns: 2 })).rejects.toThrow(/can't return 2 of 1/);
    // The server stops for good when a large object becomes ready that it was told to give up while a get waits.
    const actor = await counter();
    for (let i = 0; i < 6; i++) {
      const large = await actor.remote('large', [0.3, 10_000_000]);
      await expect(client.get(large, { timeoutMs: 0 })).rejects.toThrow(RayTimeoutError);
      await client.release(large);
    }
    expect(await actor.call('large', [0, 3])).toEqual(new Uint8Array(3));
    await expect(run('describe', present)).resolves.toEqual(['int', '1']);
  });

  it('sends arrays of any length', async () => {
    const long = Array.from({ length: 200_000 }, (_, i) => i);
    expect(String(await run('echo', long))).toBe(String(long));
    expect(String(await client.get(await client.put(long)))).toBe(String(long));
    const looks = { kind: 'Object', id: Uint8Array.of(1) };
    expect(await run('echo', looks)).toEqual(looks);
  });

  it('starts actors, by name and detached, kills and finds them again', async () => {
    const anonymous = await counter([5]);
    expect(await Promise.all([1, 2, 3].map((k) => anonymous.call('add', [k])))).toEqual([6, 8, 11]);
    await expect(anonymous.call('fail')).rejects.toMatchObject({ name: 'RayTaskError', type: 'builtins.KeyError' });
    await expect(anonymous.remote('no_such')).rejects.toThrow(/no_such/);

    const threads = await counter([], { maxConcurrency: 4 });
    await threads.call('pid');
    const start = performance.now();
    await Promise.all([1, 2, 3, 4].map(() => threads.call('nap', [1])));
    expect(performance.now() - start).toBeLessThan(4000);

    const named = await counter([1], { name: 'mine', numCpus: 0 });
    expect(await named.call('add', [1])).toBe(2);
    const again = await client.getActor('mine');
    expect(await again.call('add', [1])).toBe(3);
    expect(await client.namedActors({ allNamespaces: true })).toContainEqual({ name: 'mine', namespace: 'tests' });
    await expect(client.getActor('nobody')).rejects.toMatchObject({ type: 'builtins.ValueError' });

    await client.kill(named);
    const called = (): Promise<unknown> => again.call('add', [1]).catch((error: unknown) => error);
    await expect.poll(called, { timeout: 30_000 }).toBeInstanceOf(RayActorDiedError);
    const dying = await counter();
    await expect(dying.call('die')).rejects.toThrow(RayActorDiedError);
    const reborn = await counter([10], { maxRestarts: 1 });
    const before = await reborn.call('pid');
    await client.kill(reborn, { restart: true });
    await expect.poll(() => reborn.call('pid').catch(() => before), { timeout: 60_000 }).not.toBe(before);

    const other = await connectRay({ address, namespace: 'tests', graceSeconds: 0 });
    const stays = await (await other.actorClass(pythonSource(SOURCE, 'Counter'))).create([40], {
      name: 'stays',
      lifetime: 'detached',
    });
    const goes = await (await other.actorClass(pythonSource(SOURCE, 'Counter'))).create([], { name: 'goes' });
    await Promise.all([stays, goes].map((actor) => actor.call('pid')));
    await other.close();
    await expect.poll(() => client.getActor('goes').catch(() => 'gone'), { timeout: 30_000 }).toBe('gone');
    const found = await client.getActor('stays');
    expect(await found.call('add', [2])).toBe(42);
    const same = await counter([100], { name: 'stays', lifetime: 'detached', getIfExists: true });
    expect(await same.call('add', [1])).toBe(43);
    await client.kill(found);
  });

  it('places actors on nodes', async () => {
    const ids = (await client.nodes()).map(({ NodeID }) => String(NodeID));
    const where = `
import ray
class Where:
    def node(self):
        return ray.get_runtime_context().get_node_id()
`;
    const Where = await client.actorClass(pythonSource(where, 'Where'));
    const actors = await Promise.all(ids.map((nodeId) => Where.create([], { placement: { nodeId } })));
    expect(await Promise.all(actors.map((actor) => actor.call('node')))).toEqual(ids);
    await client.release(...actors);
    const nowhere = await Where.create([], { placement: { nodeId: 'ab'.repeat(28) } });
    await expect(nowhere.call('node')).rejects.toThrow(RayUnschedulableError);
  });

  it('brings what is printed', async () => {
    const actor = await counter();
    await actor.call('add', [12345]);
    await expect.poll(() => logs.map(({ text }) => text).join(''), { timeout: 20_000 }).toMatch(/added 12345/);
    expect(logs.find(({ text }) => text.includes('added 12345'))?.stream).toBe('stdout');
  });

  it('stores keys', async () => {
    expect(await client.kvPut('ft:a', Uint8Array.of(1))).toBe(false);
    expect(await client.kvPut('ft:a', Uint8Array.of(2))).toBe(true);
    await client.kvPut('ft:b', Uint8Array.of(3));
    expect(await client.kvGet('ft:a')).toEqual(Uint8Array.of(2));
    expect(await client.kvDelete('ft:', { prefix: true })).toBe(2);
    expect(await client.kvGet('ft:a')).toBeUndefined();
  });

  it('survives a lost connection with calls and chunks on the way, and runs nothing twice', async () => {
    const actor = await counter();
    await actor.call('pid');
    const big = new Uint8Array(30_000_000).map((_, i) => (i * 7) & 255);
    let going = true;
    const breaking = (async () => {
      for (let i = 0; i < 4; i++) {
        await sleep(120);
        client.interrupt();
      }
      going = false;
    })();
    const adds: Promise<unknown>[] = [];
    const puts: Promise<void>[] = [];
    while (going) {
      adds.push(actor.call('add', [1]));
      if (puts.length < 6)
        puts.push(
          (async () => {
            const ref = await client.put(big);
            expect(Buffer.compare((await client.get(ref)) as Uint8Array, big)).toBe(0);
            await client.release(ref);
          })(),
        );
      await sleep(15);
    }
    await breaking;
    const results = (await Promise.all(adds)) as number[];
    await Promise.all(puts);
    // Each call counted once: 1 … n without a gap and without a repeat.
    expect([...results].sort((a, b) => a - b)).toEqual(results.map((_, i) => i + 1));
    expect(warnings.filter((text) => /is back/.test(text)).length).toBeGreaterThanOrEqual(2);
  });

  it('ends calls when the session is over', async () => {
    const other = await connectRay({ address, graceSeconds: 0 });
    const nap = await (await other.function(pythonSource(SOURCE, 'nap'))).remote([60]);
    const waiting = other.get(nap).catch((error: unknown) => error);
    other.interrupt();
    expect(await waiting).toBeInstanceOf(RayConnectionError);
    await expect(other.put(1)).rejects.toThrow(RayConnectionError);
    await other.close();
  });

  it('refuses wrong addresses and a server that is not there', async () => {
    const source = 'import ray\ndef gcs(): return ray.get_runtime_context().gcs_address';
    const gcs = await client.get(await (await client.function(pythonSource(source, 'gcs'))).remote());
    await expect(connectRay({ address: `ray://${gcs}` })).rejects.toThrow(/is no Ray Client server/);
    await expect(connectRay({ address: 'http://x' })).rejects.toThrow(/expected ray:\/\/host:port/);
    await expect(connectRay({ address: 'ray://127.0.0.1:1', graceSeconds: 0, connectMs: 300 })).rejects.toThrow(
      RayConnectionError,
    );
  });
});

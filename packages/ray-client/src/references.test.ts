/** @file References that the server does not hold are not sent: it would end the session, or stop for good. */
import { setImmediate } from 'node:timers/promises';
import { pickleCall, pickleList, picklePersistent, writePickle } from '@frame-thinker/pickle';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { RayClient } from './client.ts';
import { connectRay } from './connect.ts';
import { RayTimeoutError, RayValueError } from './errors.ts';
import { ActorHandle, ObjectRef } from './handles.ts';
import { pythonModule } from './python.ts';
import { type FakeBehaviour, type FakeServer, type RequestOfType, startFakeServer } from './testing/fake-server.ts';

let server: FakeServer;
let client: RayClient;
let answer: NonNullable<FakeBehaviour['answer']>;
const gets: number[] = [];
let waits = 0;

beforeEach(async () => {
  answer = ({ case: type }, id) => {
    if (type === 'get') gets.push(id);
    return type === 'get' ? undefined : 'default';
  };
  gets.length = 0;
  waits = 0;
  server = await startFakeServer({
    answer: (request, id) => answer(request, id),
    wait: async () => {
      waits++;
      return { valid: true };
    },
  });
  client = await connectRay({ address: server.address });
});
afterEach(async () => {
  await client.close();
  server.stop();
});

const count = (type: string): number => server.requests.filter((request) => request.case === type).length;
const released = (): string[] =>
  server.requests
    .filter((request) => request.case === 'release')
    .flatMap(({ value }) => (value as RequestOfType<'release'>).ids.map((id) => Buffer.from(id).toString('hex')));
const result = (data: Uint8Array) => ({ case: 'get', value: { valid: true, data, chunkId: 0, totalChunks: 1 } });
/** A value with a reference to an object, as the server sends it. */
const listOf = ({ id }: ObjectRef): Uint8Array =>
  writePickle(pickleList(picklePersistent({ ...stub, args: ['Object', 'client', id, null, null] })));
const stub = {
  kind: 'object' as const,
  cls: pickleCall('ray.util.client.client_pickler PickleStub').callee,
  args: [],
  state: undefined,
};

describe('a released reference', () => {
  it('is refused as an argument, within one, and in all other places, and nothing is sent', async () => {
    const f = await client.function(pythonModule('a', 'f'));
    const ref = await client.put(1);
    const actor = await (await client.actorClass(pythonModule('a', 'A'))).create();
    await client.release(ref, actor);
    expect(released()).toEqual([ref.hex, actor.hex]);
    const before = server.requests.length;
    for (const wrong of [
      () => f.remote([ref]),
      () => f.remote([{ deep: [ref] }]),
      () => f.remote([actor]),
      () => actor.remote('method'),
      () => client.put([ref]),
      () => client.get(ref),
      () => client.wait([ref]),
      () => client.cancel(ref),
      () => client.kill(actor),
    ])
      await expect(wrong(), String(wrong)).rejects.toThrow(RayValueError);
    await expect(f.remote([ref])).rejects.toThrow(
      `this session does not hold the object ${ref.hex}: it was released, or is another session's`,
    );
    // Not again either.
    await client.release(ref, actor);
    expect(server.requests).toHaveLength(before);
    expect(waits).toBe(0);
    await expect(f.remote([await client.put(1)])).resolves.toBeInstanceOf(ObjectRef);
  });

  it('is refused as soon as its release is asked for, and so is one of another session', async () => {
    const f = await client.function(pythonModule('a', 'f'));
    const ref = await client.put(1);
    client.releaseSoon(ref);
    await expect(f.remote([ref])).rejects.toThrow(RayValueError);
    const other = await connectRay({ address: server.address });
    const foreign = await other.put(1);
    await expect(f.remote([foreign])).rejects.toThrow(/another session's/);
    await other.close();
  });

  it('is held again when a result brings it again', async () => {
    const f = await client.function(pythonModule('a', 'f'));
    const [inner, outer] = [await client.put(1), await client.put([])];
    await client.release(inner);
    answer = ({ case: type }) => (type === 'get' ? result(listOf(inner)) : 'default');
    const [again] = (await client.get(outer)) as ObjectRef[];
    expect(again?.hex).toBe(inner.hex);
    await f.remote([again]);
  });

  it('is refused when a result of before its release brings it', async () => {
    const f = await client.function(pythonModule('a', 'f'));
    const [inner, outer] = [await client.put(1), await client.put([])];
    const releases: number[] = [];
    answer = ({ case: type }, id) => {
      if (type === 'get') gets.push(id);
      else if (type === 'release') releases.push(id);
      else return 'default';
      return undefined;
    };
    const reading = client.get(outer);
    const releasing = client.release(inner);
    await client.put(2);
    server.reply(gets[0]!, result(listOf(inner)));
    await reading;
    server.reply(releases[0]!, { case: 'release', value: { ok: [true] } });
    await releasing;
    await expect(f.remote([inner])).rejects.toThrow(RayValueError);
    answer = () => 'default';
  });

  it('is not given up when a result brings it again before the server was told', async () => {
    const [inner, outer] = [await client.put(1), await client.put([])];
    const waiting = client.get(inner);
    await client.put(3);
    await client.release(inner);
    answer = ({ case: type }) => (type === 'get' ? result(listOf(inner)) : 'default');
    await client.get(outer);
    server.reply(gets[0]!, result(writePickle(1)));
    expect(await waiting).toBe(1);
    await client.release(outer);
    expect(released()).toEqual([outer.hex]);
  });
});

describe('an object that is released while a get waits for it', () => {
  it('is given up when the get is answered', async () => {
    const ref = await client.put(1);
    await expect(client.get(ref, { timeoutMs: 0 })).rejects.toThrow(RayTimeoutError);
    await client.release(ref);
    await client.put(2);
    expect(released()).toEqual([]);
    server.reply(gets[0]!, result(writePickle(1)));
    await expect.poll(released).toEqual([ref.hex]);
    expect(count('get')).toBe(1);
  });

  it('is given up when the last of its gets is answered, others at once', async () => {
    const [ref, other] = [await client.put(1), await client.put(2)];
    const [first, second] = [client.get(ref), client.get(ref)];
    await client.put(3);
    await client.release(ref, other);
    expect(released()).toEqual([other.hex]);
    server.reply(gets[0]!, result(writePickle(1)));
    await first;
    await setImmediate();
    await client.put(4);
    expect(released()).toEqual([other.hex]);
    server.reply(gets[1]!, result(writePickle(1)));
    await second;
    await expect.poll(released).toEqual([other.hex, ref.hex]);
  });
});

describe('wait', () => {
  it('refuses what can not be waited for, and asks for nothing', async () => {
    const [a, b] = [await client.put(1), await client.put(2)];
    for (const [refs, options, message] of [
      [[a, b], { numReturns: 3 }, "wait can't return 3 of 2 objects (numReturns)"],
      [[a, b], { numReturns: 0 }, "wait can't return 0 of 2 objects (numReturns)"],
      [[a, b], { numReturns: 1.5 }, "wait can't return 1.5 of 2 objects (numReturns)"],
      [[a, b, new ObjectRef(a.id)], {}, `wait is given the object ${a.hex} twice`],
      [[a], { timeoutMs: -1000 }, "wait can't take -1000 ms"],
      [[a], { timeoutMs: Number.NaN }, "wait can't take NaN ms"],
    ] as const)
      await expect(client.wait(refs, options)).rejects.toThrow(message);
    expect(waits).toBe(0);
    await client.wait([a, b], { numReturns: 2, timeoutMs: 0 });
    expect(waits).toBe(1);
  });
});

it('actors and objects of results are held', async () => {
  const outer = await client.put([]);
  const id = Buffer.from('actor');
  const actor = picklePersistent({ ...stub, args: ['Actor', 'client', id, null, null] });
  answer = ({ case: type }) => (type === 'get' ? result(writePickle(actor)) : 'default');
  const handle = (await client.get(outer)) as ActorHandle;
  expect(handle).toBeInstanceOf(ActorHandle);
  await handle.remote('method', [handle]);
});

/** @file The worker's engine thread: takes frames from the main thread, one call after the other, and sends frames back. */
import { type MessagePort, parentPort } from 'node:worker_threads';
import { InvariantError } from '@frame-thinker/core';
import { decodeRequest, encodeFrame, errorReply, type Reply } from '@frame-thinker/worker-pool';
import { createPolicyService } from './service.ts';

/** One frame of an answer, as bytes. */
export interface ThreadMessage {
  id: number;
  bytes: Uint8Array<ArrayBuffer>;
  /** The last frame of the call. */
  last: boolean;
}

function serve(port: MessagePort): void {
  const service = createPolicyService();
  const send = (reply: Reply, tensors: Parameters<typeof encodeFrame>[1] = []): void => {
    const chunks = encodeFrame(reply, tensors);
    // Copied into one buffer of its own, which then moves without a copy.
    const bytes = new Uint8Array(chunks.reduce((sum, chunk) => sum + chunk.byteLength, 0));
    let at = 0;
    for (const chunk of chunks) {
      bytes.set(chunk, at);
      at += chunk.byteLength;
    }
    port.postMessage({ id: reply.id, bytes, last: reply.partial === undefined } satisfies ThreadMessage, [
      bytes.buffer,
    ]);
  };
  const serveOne = async (body: Uint8Array): Promise<void> => {
    const { call, tensors } = decodeRequest(body);
    const since = performance.now();
    const ms = (): number => Math.round((performance.now() - since) * 1000) / 1000;
    try {
      const partial = (params: NonNullable<Reply['partial']>, parts: Parameters<typeof encodeFrame>[1]) =>
        send({ v: 1, id: call.id, ms: ms(), partial: params }, parts);
      const answer = await service.handle(call, { tensors, partial });
      send({ v: 1, id: call.id, ms: ms(), result: answer.result }, answer.tensors);
    } catch (error) {
      send(errorReply(call.id, ms(), error));
    }
  };
  let queue = Promise.resolve();
  port.on('message', (body: Uint8Array) => {
    queue = queue.then(() => serveOne(body));
  });
}

if (!parentPort) throw new InvariantError('thread.ts is started by main.ts');
serve(parentPort);

/** @file The worker's end of the protocol: requests from stdin, replies to fd 3, the end when stdin ends. */
import { Socket } from 'node:net';
import { messageOf } from '@frame-thinker/core';
import { decodeRequest, encodeFrame, type Frame, FrameSplitter, type Reply, type Request } from './frames.ts';
import { removeScratch, removeStaleScratch } from './scratch-folder.ts';

/** Id of replies that belong to no call: what was sent could not be read. */
export const NO_CALL = 0;

export interface WorkerServer {
  /** Writes one encoded frame. */
  write(chunks: readonly Uint8Array[]): void;
}

/** The error part of a reply. */
export function errorReply(id: number, ms: number, error: unknown): Reply {
  const { name, stack } = error instanceof Error ? error : { name: 'Error', stack: '' };
  return { v: 1, id, ms, error: { type: name, message: messageOf(error), trace: stack ?? '' } };
}

/** How long what is being computed may take to stop. */
const STOP_MS = 2_000;

/**
 * Serves this process's stdin until it ends, then exits with 0. Interrupts from the terminal are left to the controller.
 * @param onRequest takes each request, with the frame's body (its memory is the callee's)
 * @param stop ends what is being computed; a process whose native code does not let go of a thread is killed, since exiting would wait for it
 */
export function serveStdin(
  onRequest: (frame: Frame<Request>, body: Uint8Array) => void,
  stop: () => Promise<unknown> = async () => {},
): WorkerServer {
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => {});
  removeStaleScratch();
  const end = (code: number): void => {
    // A trainer that was killed could not.
    removeScratch();
    setTimeout(() => process.kill(process.pid, 'SIGKILL'), STOP_MS);
    void stop().then(() => {
      // What was written since.
      removeScratch();
      process.exit(code);
    });
  };
  const out = new Socket({ fd: 3, readable: false, writable: true });
  out.on('error', () => end(1)); // Nobody listens any more.
  const write = (chunks: readonly Uint8Array[]): void => {
    out.cork();
    for (const chunk of chunks) out.write(chunk);
    out.uncork();
  };
  const splitter = new FrameSplitter();
  process.stdin.on('data', (chunk: Buffer) => {
    let bodies: Uint8Array[];
    try {
      bodies = splitter.push(chunk);
    } catch (error) {
      // The place of the next frame is lost with the length.
      write(encodeFrame(errorReply(NO_CALL, 0, error)));
      out.end(() => process.exit(1));
      process.stdin.pause();
      return;
    }
    for (const body of bodies) {
      let frame: Frame<Request>;
      try {
        frame = decodeRequest(body);
      } catch (error) {
        write(encodeFrame(errorReply(NO_CALL, 0, error)));
        continue;
      }
      onRequest(frame, body);
    }
  });
  process.stdin.on('end', () => end(0));
  process.stdin.on('error', () => end(1));
  return { write };
}

/** @file One worker process of this machine: starts it, sends requests to its stdin, matches the replies of its fd 3, keeps its log. */
import { type ChildProcess, spawn } from 'node:child_process';
import type { Readable } from 'node:stream';
import type { TensorData } from '@frame-thinker/checkpoint';
import { messageOf } from '@frame-thinker/core';
import { CallBook, type OnPartial } from './call-book.ts';
import { decodeReply, encodeFrame, FrameSplitter, type JsonObject } from './frames.ts';
import type { Answer, WorkerConnection } from './transport.ts';

/** How long a worker may take to end after its stdin was closed. */
const CLOSE_MS = 5_000;

export interface WorkerProcessOptions {
  /** Names the worker in errors, e.g. `worker 0`. */
  name: string;
  /** Absolute path of the entry module; run by this Node with tsx. */
  entry: string;
  /** Its stdout and stderr are appended here. */
  logFile?: string;
  env?: NodeJS.ProcessEnv;
}

/** Of this process. What ends it at once must not leave one that is stopped or hangs. */
const living = new Set<ChildProcess>();
process.on('exit', () => {
  for (const child of living) child.kill('SIGKILL');
});

export class WorkerProcess implements WorkerConnection {
  readonly name: string;
  readonly died: Promise<void>;
  readonly #child: ChildProcess;
  readonly #book: CallBook;
  #closing = false;

  constructor(options: WorkerProcessOptions) {
    this.name = options.name;
    this.#book = new CallBook(options);
    this.#child = spawn(process.execPath, ['--import', import.meta.resolve('tsx'), options.entry], {
      stdio: ['pipe', 'pipe', 'pipe', 'pipe'],
      env: { ...process.env, ...options.env },
    });
    living.add(this.#child);
    this.#child.on('exit', () => living.delete(this.#child));
    this.#child.stdin!.on('error', () => {}); // A dead worker shows by its exit.
    for (const stream of [this.#child.stdout!, this.#child.stderr!]) {
      stream.setEncoding('utf8');
      stream.on('data', (text: string) => this.#book.keepLog(text));
    }
    this.#readReplies(this.#child.stdio[3] as Readable);
    this.died = new Promise((resolve) => {
      this.#child.on('error', (error) => {
        this.#book.die(`could not be started: ${error.message}`, { type: 'not_started' });
        resolve();
      });
      this.#child.on('close', (code, signal) => {
        this.#book.die(this.#closing ? 'was closed' : `died (${signal ?? `exit code ${code}`})`, {
          quiet: this.#closing,
        });
        resolve();
      });
    });
  }

  get pid(): number | undefined {
    return this.#child.pid;
  }

  get where(): string {
    return `pid ${this.pid}`;
  }

  get dead(): boolean {
    return this.#book.dead;
  }

  oldestCall(): { method: string; ms: number; quietMs: number } | undefined {
    return this.#book.oldestCall();
  }

  /**
   * Sends a request; calls are served in order.
   * @throws WorkerError with the worker's error, or when it dies.
   */
  call(
    method: string,
    params: JsonObject = {},
    tensors: Iterable<readonly [string, TensorData]> = [],
    onPartial?: OnPartial,
  ): Promise<Answer> {
    const { id, answer } = this.#book.add(method, onPartial);
    if (this.dead) return answer;
    const stdin = this.#child.stdin!;
    stdin.cork();
    for (const chunk of encodeFrame({ v: 1, id, method, params }, tensors)) stdin.write(chunk);
    stdin.uncork();
    return answer;
  }

  /** Ends the worker by closing its stdin; kills it when it doesn't go. Its log is complete then. */
  async close(): Promise<void> {
    await this.#end();
    await this.#book.logWritten;
  }

  async #end(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return this.died;
    this.#closing = true;
    this.#child.stdin!.end();
    const timer = setTimeout(() => this.#child.kill('SIGKILL'), CLOSE_MS);
    await this.died;
    clearTimeout(timer);
  }

  kill(reason: string): Promise<void> {
    this.#book.die(reason);
    this.#child.kill('SIGKILL');
    return this.died;
  }

  #readReplies(stream: Readable): void {
    const splitter = new FrameSplitter();
    const broken = (error: unknown): void => {
      void this.kill(`answered with a frame that cannot be read: ${messageOf(error)}`);
    };
    stream.on('data', (chunk: Buffer) => {
      // What a worker says after its end is not waited for.
      if (this.dead) return;
      try {
        for (const body of splitter.push(chunk)) this.#book.settle(decodeReply(body));
      } catch (error) {
        broken(error);
      }
    });
    stream.on('error', broken);
  }
}

/** @file One worker process: starts it, sends requests to its stdin, matches the replies of its fd 3, keeps its log. */
import { type ChildProcess, spawn } from 'node:child_process';
import { createWriteStream, mkdirSync, type WriteStream } from 'node:fs';
import { dirname } from 'node:path';
import type { Readable } from 'node:stream';
import type { TensorData } from '@frame-thinker/checkpoint';
import { InputError, messageOf } from '@frame-thinker/core';
import { ProtocolError, WorkerError } from './errors.ts';
import {
  decodeReply,
  encodeFrame,
  type Frame,
  FrameSplitter,
  type JsonObject,
  type Reply,
  type Tensors,
} from './frames.ts';
import type { Answer } from './transport.ts';

/** Log lines kept for the error message of a dead worker. */
const KEPT_LINES = 40;
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

interface Pending {
  method: string;
  since: number;
  resolve(answer: Answer): void;
  reject(error: Error): void;
  onPartial: ((partial: JsonObject, tensors: Tensors) => void) | undefined;
}

export class WorkerProcess {
  readonly name: string;
  readonly #child: ChildProcess;
  readonly #pending = new Map<number, Pending>();
  readonly #lines: string[] = [];
  readonly #log: WriteStream | undefined;
  readonly #exited: Promise<void>;
  readonly #logFile: string | undefined;
  #nextId = 1;
  #death: Error | undefined;
  #closing = false;

  constructor(options: WorkerProcessOptions) {
    this.name = options.name;
    this.#logFile = options.logFile;
    if (options.logFile) {
      mkdirSync(dirname(options.logFile), { recursive: true });
      this.#log = createWriteStream(options.logFile, { flags: 'a' });
      this.#log.on('error', () => {}); // A full disk must not end training; the lines are kept in memory too.
    }
    this.#child = spawn(process.execPath, ['--import', import.meta.resolve('tsx'), options.entry], {
      stdio: ['pipe', 'pipe', 'pipe', 'pipe'],
      env: { ...process.env, ...options.env },
    });
    this.#child.stdin!.on('error', () => {}); // A dead worker shows by its exit.
    this.#keepLines(this.#child.stdout!);
    this.#keepLines(this.#child.stderr!);
    this.#readReplies(this.#child.stdio[3] as Readable);
    this.#exited = new Promise((resolve) => {
      this.#child.on('error', (error) => {
        this.#die(`could not be started: ${error.message}`);
        resolve();
      });
      this.#child.on('close', (code, signal) => {
        this.#die(this.#closing ? 'was closed' : `died (${signal ?? `exit code ${code}`})`);
        this.#log?.end();
        resolve();
      });
    });
  }

  get pid(): number | undefined {
    return this.#child.pid;
  }

  get dead(): boolean {
    return this.#death !== undefined;
  }

  /** The longest-running call, if any. */
  oldestCall(): { method: string; ms: number } | undefined {
    const first = this.#pending.values().next().value;
    return first && { method: first.method, ms: performance.now() - first.since };
  }

  /**
   * Sends a request; calls are served in order.
   * @throws WorkerError with the worker's error, or when it dies.
   */
  call(
    method: string,
    params: JsonObject = {},
    tensors: Iterable<readonly [string, TensorData]> = [],
    onPartial?: (partial: JsonObject, tensors: Tensors) => void,
  ): Promise<Answer> {
    if (this.#death) return Promise.reject(this.#deathOf(method));
    const id = this.#nextId++;
    return new Promise((resolve, reject) => {
      this.#pending.set(id, { method, since: performance.now(), resolve, reject, onPartial });
      const stdin = this.#child.stdin!;
      stdin.cork();
      for (const chunk of encodeFrame({ v: 1, id, method, params }, tensors)) stdin.write(chunk);
      stdin.uncork();
    });
  }

  /** Ends the worker by closing its stdin; kills it when it doesn't go. */
  async close(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return this.#exited;
    this.#closing = true;
    this.#child.stdin!.end();
    const timer = setTimeout(() => this.#child.kill('SIGKILL'), CLOSE_MS);
    await this.#exited;
    clearTimeout(timer);
  }

  /** Ends the process at once. */
  kill(): void {
    this.#child.kill('SIGKILL');
  }

  #keepLines(stream: Readable): void {
    let rest = '';
    stream.setEncoding('utf8');
    stream.on('data', (text: string) => {
      this.#log?.write(text);
      const lines = (rest + text).split('\n');
      rest = lines.pop()!.slice(-10_000);
      this.#lines.push(...lines);
      this.#lines.splice(0, Math.max(0, this.#lines.length - KEPT_LINES));
    });
    stream.on('end', () => {
      if (rest) this.#lines.push(rest);
    });
  }

  #readReplies(stream: Readable): void {
    const splitter = new FrameSplitter();
    const broken = (error: unknown): void => {
      this.#die(`answered with a frame that cannot be read: ${messageOf(error)}`);
      this.kill();
    };
    stream.on('data', (chunk: Buffer) => {
      try {
        for (const body of splitter.push(chunk)) this.#settle(decodeReply(body));
      } catch (error) {
        broken(error);
      }
    });
    stream.on('error', broken);
  }

  #settle({ call, tensors }: Frame<Reply>): void {
    const pending = this.#pending.get(call.id);
    if (!pending && call.error) throw new ProtocolError(`of no call: ${call.error.message}`);
    if (!pending) throw new ProtocolError(`a reply to call ${call.id}, which is not waiting`);
    if (call.partial) {
      pending.onPartial?.(call.partial, tensors);
      return;
    }
    this.#pending.delete(call.id);
    if (call.error) {
      const { type, message, trace } = call.error;
      // Bad input is the user's to see as it is, not the worker's failure.
      if (type === 'InputError') pending.reject(new InputError(message));
      else pending.reject(new WorkerError(type, pending.method, `${this.name}, ${pending.method}: ${message}`, trace));
    } else pending.resolve({ result: call.result ?? {}, tensors, ms: call.ms });
  }

  #deathOf(method: string): WorkerError {
    const tail = this.#lines.slice(-5).join('\n').trim();
    const where = this.#logFile ? ` (log: ${this.#logFile})` : '';
    const message = `${this.name} ${this.#death!.message} in ${method}${where}${tail && !this.#closing ? `; its last lines:\n${tail}` : ''}`;
    return new WorkerError('died', method, message, this.#lines.join('\n'));
  }

  #die(how: string): void {
    this.#death ??= new Error(how);
    for (const pending of this.#pending.values()) pending.reject(this.#deathOf(pending.method));
    this.#pending.clear();
  }
}

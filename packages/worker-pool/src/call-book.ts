/** @file What the controller's end of a worker remembers: the calls that wait for an answer, the last lines of its log, its death. */
import { createWriteStream, mkdirSync, type WriteStream } from 'node:fs';
import { dirname } from 'node:path';
import { InputError, RunError } from '@frame-thinker/core';
import { type Death, ProtocolError, WorkerError } from './errors.ts';
import type { Frame, JsonObject, Reply, Tensors } from './frames.ts';
import type { Answer } from './transport.ts';

/** Log lines kept for the error message of a dead worker, and how many of them it shows. */
const KEPT_LINES = 40;
const SHOWN_LINES = 5;
const LONGEST_LINE = 10_000;

export type OnPartial = (partial: JsonObject, tensors: Tensors) => void;

interface Pending {
  method: string;
  since: number;
  /** When something last came of it. */
  heard: number;
  resolve(answer: Answer): void;
  reject(error: Error): void;
  onPartial: OnPartial | undefined;
}

export class CallBook {
  readonly #name: string;
  readonly #logFile: string | undefined;
  readonly #log: WriteStream | undefined;
  /** Resolves after the death, when all of the log is in its file, or can't be written. */
  readonly logWritten: Promise<void>;
  readonly #pending = new Map<number, Pending>();
  readonly #lines: string[] = [];
  #rest = '';
  #nextId = 1;
  #death: { how: string; quiet: boolean; type: Death } | undefined;

  /** @param options the worker's name in messages, and where its log is appended */
  constructor({ name, logFile }: { name: string; logFile?: string | undefined }) {
    this.#name = name;
    this.#logFile = logFile;
    this.logWritten = Promise.resolve();
    if (logFile === undefined) return;
    mkdirSync(dirname(logFile), { recursive: true });
    this.#log = createWriteStream(logFile, { flags: 'a' });
    this.logWritten = new Promise((resolve) => this.#log!.on('close', resolve));
    this.#log.on('error', () => {}); // A full disk must not end training; the lines are kept in memory too.
  }

  get dead(): boolean {
    return this.#death !== undefined;
  }

  /** Notes a call. Its promise settles by `settle`, or rejects by `die`. */
  add(method: string, onPartial?: OnPartial): { id: number; answer: Promise<Answer> } {
    const id = this.#nextId++;
    if (this.#death) return { id, answer: Promise.reject(this.#deathOf(method)) };
    const now = performance.now();
    const answer = new Promise<Answer>((resolve, reject) => {
      this.#pending.set(id, { method, since: now, heard: now, resolve, reject, onPartial });
    });
    return { id, answer };
  }

  /** Takes a reply. @throws ProtocolError when it belongs to no call */
  settle({ call, tensors }: Frame<Reply>): void {
    const pending = this.#pending.get(call.id);
    if (!pending && call.error) throw new ProtocolError(`of no call: ${call.error.message}`);
    if (!pending) throw new ProtocolError(`a reply to call ${call.id}, which is not waiting`);
    pending.heard = performance.now();
    if (call.partial) {
      pending.onPartial?.(call.partial, tensors);
      return;
    }
    this.#pending.delete(call.id);
    // The next call begins now.
    const next = this.#pending.values().next().value;
    if (next) next.since = next.heard = pending.heard;
    if (!call.error) {
      pending.resolve({ result: call.result ?? {}, tensors, ms: call.ms });
      return;
    }
    const { type, message, trace } = call.error;
    // Bad input is the user's to see as it is, not the worker's failure.
    if (type === 'InputError') pending.reject(new InputError(message));
    else if (type === 'RunError') pending.reject(new RunError(`${this.#name}, ${pending.method}: ${message}`));
    else pending.reject(new WorkerError(type, pending.method, `${this.#name}, ${pending.method}: ${message}`, trace));
  }

  /** The call that runs now. */
  oldestCall(): { method: string; ms: number; quietMs: number } | undefined {
    const first = this.#pending.values().next().value;
    const now = performance.now();
    return first && { method: first.method, ms: now - first.since, quietMs: now - first.heard };
  }

  /** Takes what the worker printed. */
  keepLog(text: string): void {
    this.#log?.write(text);
    const lines = (this.#rest + text).split('\n');
    this.#rest = lines.pop()!.slice(-LONGEST_LINE);
    this.#lines.push(...lines);
    this.#lines.splice(0, Math.max(0, this.#lines.length - KEPT_LINES));
  }

  /** The worker is dead: all calls reject, now and later. The first death counts; a quiet one shows no log. */
  die(how: string, { quiet = false, type = 'died' }: { quiet?: boolean; type?: Death } = {}): void {
    if (this.#death) return;
    this.#death = { how, quiet, type };
    for (const { method, reject } of this.#pending.values()) reject(this.#deathOf(method));
    this.#pending.clear();
    this.#log?.end();
  }

  #deathOf(method: string): WorkerError {
    const { how, quiet, type } = this.#death!;
    const lines = [...this.#lines, this.#rest].filter((line) => line.trim() !== '');
    const tail = lines.slice(-SHOWN_LINES).join('\n');
    const where = this.#logFile === undefined ? '' : ` (log: ${this.#logFile})`;
    const shown = tail && !quiet ? `; its last lines:\n${tail}` : '';
    return new WorkerError(type, method, `${this.#name} ${how} in ${method}${where}${shown}`, lines.join('\n'));
  }
}

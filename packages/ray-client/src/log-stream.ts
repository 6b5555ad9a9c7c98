/** @file What functions and actors print, and what Ray says of the session. */
import { create } from '@bufbuild/protobuf';
import type { ClientDuplexStream, ServiceError } from '@grpc/grpc-js';
import { type Channel, isRecoverable, type LogData, type LogSettings } from './channel.ts';
import { LogSettingsRequestSchema } from './ray_client_pb.ts';

const RETRY_MS = 500;
/** Ray's levels of printed text; what is at least INFO of Python's logging is a record. */
const [STDOUT, STDERR, INFO] = [-1, -2, 20];

export interface LogEntry {
  stream: 'stdout' | 'stderr' | 'log';
  /** Python's level of a log record; 0 for printed text. */
  level: number;
  text: string;
}

/** Calls `onLog` for what is printed from now on; comes back when the connection was lost. */
export class LogStream {
  readonly #channel: Channel;
  readonly #onLog: (entry: LogEntry) => void;
  #stream: ClientDuplexStream<LogSettings, LogData> | undefined;
  #closed = false;

  constructor(channel: Channel, onLog: (entry: LogEntry) => void) {
    this.#channel = channel;
    this.#onLog = onLog;
    this.#open();
  }

  #open(): void {
    if (this.#closed) return;
    const stream = this.#channel.logs();
    this.#stream = stream;
    stream.on('data', ({ level, msg }: LogData) => {
      if (msg === '') return; // A flush with nothing printed.
      const stream = level === STDERR ? 'stderr' : level === STDOUT ? 'stdout' : 'log';
      this.#onLog({ stream, level: Math.max(0, level), text: msg });
    });
    stream.on('error', (error: ServiceError) => {
      if (!this.#closed && isRecoverable(error)) setTimeout(() => this.#open(), RETRY_MS).unref();
    });
    stream.write(create(LogSettingsRequestSchema, { enabled: true, loglevel: INFO }));
  }

  close(): void {
    this.#closed = true;
    this.#stream?.end();
    this.#stream?.cancel();
  }
}

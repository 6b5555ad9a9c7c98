/** @file A session with the Ray Client server: opened, its streams and calls, closed. */
import { randomBytes } from 'node:crypto';
import { pickleCall, writePickle } from '@frame-thinker/pickle';
import type { ChannelCredentials } from '@grpc/grpc-js';
import { checkToken, findToken, parseAddress } from './address.ts';
import { Calls } from './calls.ts';
import { Channel } from './channel.ts';
import { DataStream } from './data-stream.ts';
import { RayConnectionError } from './errors.ts';
import { KeyValueStore } from './kv-store.ts';
import { type LogEntry, LogStream } from './log-stream.ts';
import { pickleFields } from './options.ts';
import { ClusterInfoType_TypeEnum as InfoType } from './ray_client_pb.ts';
import { prepareRuntimeEnv, type RuntimeEnv } from './runtime-env.ts';
import { checkVersion } from './version.ts';

const CONNECT_MS = 60_000;
/** How long the head keeps an uploaded package that nothing uses yet. */
const PIN_SECONDS = 600;

export interface ConnectOptions {
  /** `ray://host:port`, the port of the head node's Ray Client server (10001 by default). */
  address: string;
  /** Named actors are found within a namespace; absent: one of this session's own. */
  namespace?: string;
  runtimeEnv?: RuntimeEnv;
  /** Seconds that a lost connection may take to come back, 30 by default; 0: a lost connection ends the session. */
  graceSeconds?: number;
  /** How long the server may take to answer at first, 60,000 ms by default. */
  connectMs?: number;
  /**
   * Of clusters with RAY_AUTH_MODE=token; absent: as Ray itself finds it, where the environment of this process has
   * RAY_AUTH_MODE=token (RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH, ~/.ray/auth_token).
   */
  token?: string;
  /** TLS; absent: none. */
  credentials?: ChannelCredentials;
  /** Called with what remote code prints. */
  onLog?: (entry: LogEntry) => void;
  /** Called when something is wrong that does not end the session: another version of Ray, a lost connection. */
  onWarning?: (message: string) => void;
}

export interface ConnectionInfo {
  rayVersion: string;
  rayCommit: string;
  pythonVersion: string;
  numClients: number;
}

export class Session {
  readonly clientId = randomBytes(16).toString('hex');
  readonly calls: Calls;
  readonly kv: KeyValueStore;
  readonly #options: ConnectOptions;
  readonly #graceSeconds: number;
  readonly #channel: Channel;
  #data: DataStream | undefined;
  #logs: LogStream | undefined;
  #info: ConnectionInfo | undefined;

  constructor(options: ConnectOptions) {
    this.#options = options;
    this.#graceSeconds = options.graceSeconds ?? 30;
    const address = parseAddress(options.address);
    const token = options.token ?? findToken(process.env);
    this.#channel = new Channel({
      address,
      clientId: this.clientId,
      token: token === undefined ? undefined : checkToken(token),
      credentials: options.credentials,
    });
    this.calls = new Calls(this.#channel, this.#graceSeconds, () => this.#data);
    this.kv = new KeyValueStore(this.calls);
  }

  /** What the cluster runs. */
  get info(): ConnectionInfo {
    if (!this.#info) throw new RayConnectionError('the session is not open');
    return this.#info;
  }

  get data(): DataStream {
    if (!this.#data) throw new RayConnectionError('the session is not open');
    return this.#data;
  }

  /** @throws RayConnectionError, RayVersionError, RayRuntimeEnvError */
  async open(): Promise<void> {
    const { namespace, runtimeEnv = {}, onLog, onWarning } = this.#options;
    const deadline = Date.now() + (this.#options.connectMs ?? CONNECT_MS);
    await this.calls.call('clusterInfo', () => ({ type: InfoType.PING }), { deadline });
    const { fields, upload } = prepareRuntimeEnv(runtimeEnv);
    // The package must be there before the session is: its first process runs in it.
    if (upload) {
      await this.kv.put(upload.uri, upload.data, { overwrite: true });
      await this.calls.call('pinRuntimeEnvURI', () => ({ uri: upload.uri, expirationS: PIN_SECONDS }));
    }
    this.#data = new DataStream({
      channel: this.#channel,
      graceSeconds: this.#graceSeconds,
      onState: (state, why) => {
        if (state === 'lost') onWarning?.(`the connection to Ray was lost: ${why}`);
        else onWarning?.(`the connection to Ray is back: ${why}`);
      },
    });
    await this.#begin(this.#data, jobConfig(fields, namespace));
    const { rayVersion, rayCommit, pythonVersion, numClients } = await this.#data.request(
      { case: 'connectionInfo', value: {} },
      'connectionInfo',
    );
    this.#info = { rayVersion, rayCommit, pythonVersion, numClients };
    checkVersion(rayVersion, onWarning);
    if (onLog) this.#logs = new LogStream(this.#channel, onLog);
  }

  async #begin(data: DataStream, config: Uint8Array): Promise<void> {
    const value = {
      jobConfig: config,
      rayInitKwargs: JSON.stringify({ _skip_env_hook: true }),
      reconnectGracePeriod: this.#graceSeconds,
    };
    const init = await data.request({ case: 'init', value }, 'init');
    if (init.ok) return;
    const failure = new RayConnectionError(`${this.#options.address} began no session:\n${init.msg}`);
    data.abandon(failure);
    throw failure;
  }

  /** Breaks the connection as a failing network would. */
  interrupt(): void {
    this.data.interrupt();
  }

  async close(): Promise<void> {
    this.#logs?.close();
    await this.#data?.close();
    this.#channel.close();
  }
}

/** JobConfig(jvm_options, code_search_path, runtime_env, _client_job, metadata, ray_namespace) */
function jobConfig(runtimeEnv: Record<string, unknown>, namespace: string | undefined): Uint8Array {
  const env = Object.keys(runtimeEnv).length > 0 ? pickleFields(runtimeEnv) : null;
  return writePickle(pickleCall('ray.job_config JobConfig', null, null, env, true, null, namespace ?? null));
}

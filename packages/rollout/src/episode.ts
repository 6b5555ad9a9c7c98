/** @file One episode: the tokens of a trajectory as they come, its turns, its environment, and why it ends (behaviour.md §3). */
import {
  createRng,
  END_REASONS,
  type EndReason,
  type Environment,
  type FrameRef,
  type Group,
  InvariantError,
  messageOf,
  type Observation,
  type RolloutLimits,
  type Trajectory,
  type Turn,
} from '@frame-thinker/core';
import type { Span } from './policy-model.ts';
import type { TokenDraw } from './sampler.ts';

/** A prompt in tokens; a frame's `position` is the index in ids of its first image_pad. */
export interface EncodedPrompt {
  ids: Int32Array;
  frames: (FrameRef & { position: number })[];
  /** Ids at the end that open the assistant's first turn: part of its text, not sampled. */
  prefill?: number;
}

/** How text becomes tokens and back, for one model. */
export interface TextCodec {
  /** Ids that follow a sampled turn end: its template, the user turn, the opened assistant turn. `positions` as in EncodedPrompt, counted from ids[0]. */
  observation(message: string, frames: readonly FrameRef[]): { ids: Int32Array; positions: number[] };
  /** Special tokens are kept. */
  decode(ids: Int32Array): string;
  /** Every stop token. */
  readonly eosIds: readonly number[];
  /** The stop token after which a conversation goes on (`<|im_end|>`). */
  readonly turnEndId: number;
  /** Ids that are never sampled. */
  readonly ban: readonly number[];
}

/** Environment draws lie beside those of tokens: same key, turn words that no token uses. */
const ENVIRONMENT_TURNS = 0x80000000;

/** What follows a turn: new tokens for the model, or the end. */
export type AfterTurn = { kind: 'span'; span: Span } | { kind: 'end' };

export interface EpisodeOptions {
  group: Group;
  /** Which of the group's n. */
  sample: number;
  seed: number;
  prompt: EncodedPrompt;
  environment: Environment;
  codec: TextCodec;
  limits: RolloutLimits;
}

/** What an environment gave, which may be a user's module. @throws TypeError saying what is wrong with it */
function checkedObservation(value: unknown): Observation {
  const observation = (value ?? {}) as Observation;
  const wrong = (what: string) => new TypeError(`the environment's step returned ${what}`);
  if (typeof value !== 'object' || value === null)
    throw wrong(`${value === null ? 'null' : typeof value}, not an observation`);
  if (typeof observation.done !== 'boolean') throw wrong('an observation whose `done` is no boolean');
  if (!Array.isArray(observation.frames)) throw wrong('an observation whose `frames` are no list');
  const { reason } = observation;
  if (reason !== undefined && !END_REASONS.includes(reason))
    throw wrong(`the reason ${JSON.stringify(reason)}; there are ${END_REASONS.join(', ')}`);
  return observation;
}

export class Episode {
  readonly group: Group;
  readonly sample: number;
  /** Row of the random counter: position · n + sample. */
  readonly row: number;
  readonly #options: EpisodeOptions;
  readonly #ids: number[];
  readonly #logProbs: number[];
  readonly #mask: number[];
  readonly #frames: (FrameRef & { position: number })[];
  readonly #turns: Turn[] = [];
  #turnStart: number;
  #turnSince = performance.now();
  #assistantTurns = 0;
  #toolCalls = 0;
  #end: EndReason | undefined;

  constructor(options: EpisodeOptions) {
    const { group, sample, prompt } = options;
    this.#options = options;
    this.group = group;
    this.sample = sample;
    this.row = group.position * group.n + sample;
    this.#ids = Array.from(prompt.ids);
    this.#mask = this.#ids.map(() => 0);
    this.#logProbs = this.#ids.map(() => 0);
    this.#frames = [...prompt.frames];
    this.#turnStart = this.#promptLength;
  }

  get ended(): boolean {
    return this.#end !== undefined;
  }
  /** Index of the assistant turn being written. */
  get turn(): number {
    return this.#assistantTurns;
  }
  /** Tokens of that turn so far. */
  get turnTokens(): number {
    return this.#ids.length - this.#turnStart;
  }
  get #promptLength(): number {
    const { ids, prefill = 0 } = this.#options.prompt;
    return ids.length - prefill;
  }
  get #responseLeft(): number {
    return this.#options.limits.maxResponseLength - (this.#ids.length - this.#promptLength);
  }

  #rng(turn: number) {
    return createRng(this.#options.seed, 'sample', this.group.step, this.row, ENVIRONMENT_TURNS + turn);
  }

  /** Resets the environment. One that throws ends the episode as env_error. */
  async start(): Promise<void> {
    try {
      await this.#options.environment.reset(this.group.sample, this.#rng(0));
    } catch (error) {
      this.#end = 'env_error';
      this.#turns.push({
        role: 'assistant',
        start: this.#turnStart,
        end: this.#turnStart,
        text: '',
        error: messageOf(error),
        ms: 0,
      });
    }
  }

  /** Appends a sampled token. True when the turn is over: by a stop token or by its cap. */
  push({ id, logProb }: TokenDraw): boolean {
    const { limits, codec } = this.#options;
    // The cap counts from the turn's start: its own limit, or what was left of the response then.
    const left = this.#responseLeft + this.turnTokens;
    const cap = Math.min(limits.singleResponseMaxTokens, left);
    this.#ids.push(id);
    this.#mask.push(1);
    this.#logProbs.push(logProb);
    if (codec.eosIds.includes(id)) return true;
    if (this.turnTokens < cap) return false;
    this.#end = limits.singleResponseMaxTokens <= left ? 'turn_length' : 'length';
    return true;
  }

  /** After push said so: closes the turn and has the environment act on it. Never throws. */
  async finishTurn(): Promise<AfterTurn> {
    const { codec, environment, limits } = this.#options;
    const stop = this.#end === undefined;
    const end = this.#ids.length;
    const written = Int32Array.from(this.#ids.slice(this.#turnStart, stop ? end - 1 : end));
    const turn: Turn = {
      role: 'assistant',
      start: this.#turnStart,
      end,
      text: codec.decode(written),
      ms: performance.now() - this.#turnSince,
    };
    this.#turns.push(turn);
    const index = this.#assistantTurns++;
    if (!stop) return { kind: 'end' };
    let observation: Observation;
    try {
      observation = checkedObservation(await environment.step(turn.text, this.#rng(index)));
    } catch (error) {
      observation = { frames: [], done: true, reason: 'env_error', error: messageOf(error) };
    }
    if (observation.error !== undefined) turn.error = observation.error;
    const finish = (reason: EndReason, error?: string): AfterTurn => {
      this.#end = reason;
      if (error !== undefined) turn.error ??= error;
      return { kind: 'end' };
    };
    const lastTurn = this.#assistantTurns >= limits.maxTurns;
    if (observation.done) {
      const reason = observation.reason ?? 'env_error';
      if (observation.reason === undefined) turn.error ??= 'the environment ended the episode without a reason';
      // A look that would not have been answered can't have failed.
      if (reason === 'decode_error' && lastTurn) return finish('max_turns');
      if (reason === 'answer' && observation.action) turn.action = observation.action;
      return finish(reason);
    }
    if (this.#ids[end - 1] !== codec.turnEndId)
      return finish('bad_action', 'the turn ended with a token that ends the conversation');
    if (lastTurn) return finish('max_turns');
    if (this.#frames.length + observation.frames.length > limits.maxImages)
      return finish(
        'too_many_images',
        `${this.#frames.length} + ${observation.frames.length} images, at most ${limits.maxImages}`,
      );
    let encoded: { ids: Int32Array; positions: number[] };
    try {
      encoded = codec.observation(observation.message ?? '', observation.frames);
    } catch (error) {
      return finish('env_error', messageOf(error));
    }
    if (encoded.ids.length >= this.#responseLeft)
      return finish('length', `an observation of ${encoded.ids.length} tokens does not fit`);
    this.#record(turn, observation);
    return this.#append(observation, encoded);
  }

  /** Writes what was executed into the turn. */
  #record(turn: Turn, { action, message, frameNumber, frameIndices }: Observation): void {
    this.#toolCalls++;
    turn.observation = message ?? '';
    if (action) turn.action = action;
    if (frameNumber !== undefined) turn.frameNumber = frameNumber;
    if (frameIndices) turn.frameIndices = frameIndices;
  }

  /** Puts the observation behind the turn. The stop token went to no cache yet, so the new span begins with it. */
  #append(observation: Observation, { ids, positions }: { ids: Int32Array; positions: number[] }): AfterTurn {
    const start = this.#ids.length;
    const stop = this.#ids[start - 1]!;
    for (const [i, frame] of observation.frames.entries()) {
      const position = positions[i];
      if (position === undefined) throw new InvariantError('an observation was encoded with fewer images than it has');
      this.#frames.push({ ...frame, position: start + position });
    }
    for (const id of ids) {
      this.#ids.push(id);
      this.#mask.push(0);
      this.#logProbs.push(0);
    }
    this.#turns.push({ role: 'user', start, end: this.#ids.length, text: observation.message ?? '', ms: 0 });
    this.#turnStart = this.#ids.length;
    this.#turnSince = performance.now();
    return { kind: 'span', span: { ids: Int32Array.of(stop, ...ids), images: observation.frames } };
  }

  /** Frees the environment; errors of closing are of no use to anyone. */
  async close(): Promise<void> {
    await this.#options.environment.close().catch(() => {});
  }

  trajectory(): Trajectory {
    if (!this.#end) throw new InvariantError('the episode has not ended');
    return {
      uid: this.group.sample.uid,
      sample: this.sample,
      step: this.group.step,
      ids: Int32Array.from(this.#ids),
      mask: Uint8Array.from(this.#mask),
      logProbs: Float32Array.from(this.#logProbs),
      promptLength: this.#promptLength,
      frames: this.#frames,
      turns: this.#turns,
      end: this.#end,
      toolCalls: this.#toolCalls,
    };
  }
}

/** The trajectory of a question whose prompt could not be made: no tokens, and the reason in its one empty turn. */
export function emptyTrajectory(group: Group, sample: number, end: EndReason, error: string): Trajectory {
  return {
    uid: group.sample.uid,
    sample,
    step: group.step,
    ids: new Int32Array(0),
    mask: new Uint8Array(0),
    logProbs: new Float32Array(0),
    promptLength: 0,
    frames: [],
    turns: [{ role: 'assistant', start: 0, end: 0, text: '', error, ms: 0 }],
    end,
    toolCalls: 0,
  };
}

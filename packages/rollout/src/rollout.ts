/**
 * @file Batched rollout: episodes of many groups in a fixed number of decoding slots. The schedule depends on tokens alone,
 * never on the clock, so that the same questions under the same weights give the same bits.
 */
import type { Environment, Group, RolloutLimits, Sample, SamplingOptions, Trajectory } from '@frame-thinker/core';
import { InvariantError, messageOf, tokenUniform } from '@frame-thinker/core';
import { type AfterTurn, type EncodedPrompt, Episode, emptyTrajectory, type TextCodec } from './episode.ts';
import type { Extension, PolicyModel, Prefix } from './policy-model.ts';
import { fitPrompt } from './prompt-length.ts';
import { createScratch, sampleToken } from './sampler.ts';

/** Decoding steps that an environment gets while the other slots go on; then all wait for it. */
const OBSERVATION_DELAY = 4;
/** Prompts that are being made ahead of the one that is needed. */
const PROMPTS_AHEAD = 4;

/** A video or image of a prompt that can't be read: its episodes end as decode_error. */
export class PromptUnreadableError extends Error {
  override name = 'PromptUnreadableError';
}

export interface RolloutOptions {
  model: PolicyModel;
  codec: TextCodec;
  /** @throws PromptUnreadableError, InputError */
  prompt(sample: Sample, group: Group): Promise<EncodedPrompt>;
  /** A new environment for an episode of the row. */
  environment(sample: Sample, group: Group): Promise<Environment>;
  limits: RolloutLimits;
  sampling: SamplingOptions;
  seed: number;
  groups: readonly Group[];
}

/** What became of a group: its prompt, once, and its trajectories as they end. */
interface OpenGroup {
  index: number;
  group: Group;
  prompt: Promise<EncodedPrompt | { unreadable: string }>;
  prefix: Prefix | undefined;
  started: number;
  done: Trajectory[];
}

/** A slot in use: it has logits to sample from, or a turn's end to wait for. */
interface Seat {
  episode: Episode;
  open: OpenGroup;
  logits: Float32Array | undefined;
  after: Promise<AfterTurn> | undefined;
  /** Decoding step at which `after` is awaited. */
  due: number;
}

export interface FinishedGroup {
  /** Index in the list of groups that was given. */
  index: number;
  /** By sample. */
  trajectories: Trajectory[];
}

/** Trajectories of each group, as groups finish. */
export async function* rollout(options: RolloutOptions): AsyncGenerator<FinishedGroup> {
  const { model, codec, limits, sampling, seed } = options;
  const seats: (Seat | undefined)[] = Array.from({ length: model.slots });
  const scratch = createScratch(model.vocabSize);
  const opened: OpenGroup[] = [];
  const finished: FinishedGroup[] = [];
  let step = 0;

  const openGroup = (index: number): OpenGroup | undefined => {
    for (let i = opened.length; i <= Math.min(index + PROMPTS_AHEAD, options.groups.length - 1); i++) {
      const group = options.groups[i]!;
      const prompt = options
        .prompt(group.sample, group)
        .then((whole) => fitPrompt(whole, limits, `row ${group.sample.uid}`))
        .catch((error: unknown) => {
          if (error instanceof PromptUnreadableError) return { unreadable: messageOf(error) };
          throw error;
        });
      prompt.catch(() => {}); // It is awaited when its turn comes.
      opened.push({ index: i, group, prompt, prefix: undefined, started: 0, done: [] });
    }
    return opened[index];
  };
  const finish = (open: OpenGroup, trajectory: Trajectory): void => {
    open.done.push(trajectory);
    if (open.done.length < open.group.n) return;
    finished.push({ index: open.index, trajectories: open.done.sort((a, b) => a.sample - b.sample) });
    open.done = [];
  };
  const leave = async (slot: number, { episode, open }: Seat): Promise<void> => {
    seats[slot] = undefined;
    model.release(slot);
    await episode.close();
    finish(open, episode.trajectory());
  };

  let current = 0;
  /** The next episode that has not been started, on its group's prefilled prompt. */
  const nextEpisode = async (): Promise<{ episode: Episode; open: OpenGroup; prefix: Prefix } | undefined> => {
    for (;;) {
      const open = openGroup(current);
      if (!open) return undefined;
      const { group } = open;
      const prompt = await open.prompt;
      if ('unreadable' in prompt) {
        for (let i = 0; i < group.n; i++) finish(open, emptyTrajectory(group, i, 'decode_error', prompt.unreadable));
        current++;
        continue;
      }
      open.prefix ??= await model.prefill({ ids: prompt.ids, images: prompt.frames });
      const { prefix } = open;
      const sample = open.started++;
      if (open.started === group.n) {
        current++;
        open.prefix = undefined;
      }
      const environment = await options.environment(group.sample, group);
      const episode = new Episode({ group, sample, seed, prompt, environment, codec, limits });
      await episode.start();
      if (!episode.ended) return { episode, open, prefix };
      await episode.close();
      finish(open, episode.trajectory());
    }
  };

  try {
    for (;;) {
      // Free slots take the episodes that wait.
      for (let slot = 0; slot < seats.length; slot++) {
        if (seats[slot]) continue;
        const next = await nextEpisode();
        if (!next) break;
        model.fork(next.prefix, slot);
        seats[slot] = { episode: next.episode, open: next.open, logits: next.prefix.logits, after: undefined, due: 0 };
      }
      yield* finished.splice(0);
      if (seats.every((seat) => !seat)) return;

      // Turns whose environment is due end, or go on with an observation.
      const decoding = seats.some((seat) => seat?.logits);
      const extensions: (Extension & { seat: Seat })[] = [];
      for (const [slot, seat] of seats.entries()) {
        if (!seat?.after || (decoding && seat.due > step)) continue;
        const after = await seat.after;
        seat.after = undefined;
        if (after.kind === 'end') await leave(slot, seat);
        else extensions.push({ slot, span: after.span, seat });
      }
      if (extensions.length > 0) {
        const logits = await model.extend(extensions);
        for (const [i, { seat }] of extensions.entries()) seat.logits = logits[i];
      }

      // One token for every slot that has logits.
      const tokens = new Int32Array(seats.length).fill(-1);
      let live = 0;
      for (const [slot, seat] of seats.entries()) {
        if (!seat?.logits) continue;
        const { episode } = seat;
        const uniform = tokenUniform(seed, episode.group.step, episode.row, episode.turn, episode.turnTokens);
        const draw = sampleToken(seat.logits, sampling, codec.ban, uniform, scratch);
        seat.logits = undefined;
        if (episode.push(draw)) {
          seat.after = episode.finishTurn();
          seat.due = step + OBSERVATION_DELAY;
        } else {
          tokens[slot] = draw.id;
          live++;
        }
      }
      step++;
      if (live === 0) continue;
      const logits = await model.step(tokens);
      if (logits.length !== seats.length * model.vocabSize)
        throw new InvariantError('a step gave logits of another size');
      for (const [slot, seat] of seats.entries())
        if (seat && tokens[slot]! >= 0)
          seat.logits = logits.subarray(slot * model.vocabSize, (slot + 1) * model.vocabSize);
    }
  } finally {
    // Only left early, by an error or by the caller, are there seats here.
    for (const [slot, seat] of seats.entries()) {
      if (!seat) continue;
      model.release(slot);
      await seat.episode.close();
    }
  }
}

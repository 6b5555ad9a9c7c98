/** @file The frame-spotlight environment: it shows frames of a range, converts times to frame numbers, takes the answer. */
import {
  type Action,
  type EndReason,
  type Environment,
  InputError,
  messageOf,
  type Observation,
  type Sample,
} from '@frame-thinker/core';
import type { FrameSource, VideoFacts } from './frame-source.ts';
import { type Grammar, type ParsedAction, parseAction } from './grammar.ts';
import { frameLines } from './observations.ts';
import {
  chooseRegime,
  durationOf,
  fitSize,
  REFERENCE_REGIMES,
  type Regime,
  type RegimeOptions,
  type Size,
  zoomIndices,
} from './regimes.ts';
import { probeOnce, type RowFacts, rowFacts, rowName, sourceSize } from './sample-facts.ts';

export interface SpotlightOptions {
  frames: FrameSource;
  /** Default `strict`. */
  grammar?: Grammar;
  regimes?: RegimeOptions;
}

/** What an episode knows of its row. */
interface Episode {
  sample: Sample;
  row: RowFacts;
  probe: () => Promise<VideoFacts>;
  regime: Regime;
}

const over = (reason: EndReason, error?: string): Observation => ({
  frames: [],
  done: true,
  reason,
  ...(error !== undefined && { error }),
});

/** Frame number at a time: trunc(seconds * fps), exact for whole rates; undefined when it overflows. */
function frameAt(seconds: bigint, fps: number): bigint | undefined {
  if (Number.isSafeInteger(fps)) return seconds * BigInt(fps);
  const frame = Math.trunc(Number(seconds) * fps);
  return Number.isFinite(frame) ? BigInt(frame) : undefined;
}

/**
 * `reset` throws InputError when the row's facts are not numbers. `step` never throws: what goes wrong ends the episode
 * with its reason (`decode_error`, `env_error`: not the policy's doing). `Observation.message` is always the plain
 * message: the rollout wraps it with the chat template or `referenceObservation`.
 */
export function createSpotlightEnvironment({
  frames,
  grammar = 'strict',
  regimes = REFERENCE_REGIMES,
}: SpotlightOptions): Environment {
  let episode: Episode | undefined;

  async function totalOf({ row, probe }: Episode): Promise<number> {
    return row.totalFrames ?? (await probe()).totalFrames;
  }

  async function showFrames(episode: Episode, action: Action & { kind: 'frames' }): Promise<Observation> {
    const { sample, row, regime, probe } = episode;
    const total = await totalOf(episode);
    const { start } = action;
    if (start > total) return over('out_of_range', `frame ${start} is past the end, ${total}`);
    const end = Math.min(action.end, total);
    if (start >= end - regime.frames)
      return over('range_too_short', `from ${start} to ${end} there are not more than ${regime.frames} frames`);
    const indices = zoomIndices(start, end, regime.frames);
    let size: Size;
    try {
      size = fitSize(await sourceSize(sample, probe), regime);
      const shown = await frames.get(row.video, indices, size);
      return { message: frameLines(indices), frames: shown, done: false, action, frameIndices: indices };
    } catch (error) {
      return over('decode_error', messageOf(error));
    }
  }

  async function tellFrameNumber(
    episode: Episode,
    action: Action & { kind: 'time' },
    seconds: bigint,
  ): Promise<Observation> {
    const fps = episode.row.fps ?? (await episode.probe()).fps;
    let number = frameAt(seconds, fps);
    if (number === undefined) return over('bad_action', `the time ${action.time} is too large`);
    let note = '';
    if (grammar === 'strict') {
      const last = BigInt((await totalOf(episode)) - 1);
      if (last < 0n) return over('env_error', `${episode.row.video} has no frames`);
      if (number > last) {
        number = last;
        note = ` (the video ends at frame ${last})`;
      }
    }
    return {
      message: `Frame number at time ${action.time} is: ${number}.${note}`,
      frames: [],
      done: false,
      action,
      frameNumber: Number(number),
    };
  }

  async function execute(episode: Episode, parsed: ParsedAction): Promise<Observation> {
    if (parsed.kind !== 'action') return over(parsed.kind, parsed.message);
    const { action } = parsed;
    if (action.kind === 'answer') return { frames: [], done: true, reason: 'answer', action };
    if (episode.row.video === '') return over('env_error', `${rowName(episode.sample)} has no video`);
    if (action.kind === 'frames') return showFrames(episode, action);
    return tellFrameNumber(episode, action, parsed.exactSeconds ?? BigInt(action.seconds));
  }

  return {
    async reset(sample) {
      const row = rowFacts(sample);
      const probe = probeOnce(frames, row.video);
      episode = undefined;
      let duration = durationOf(row);
      // Half-known rows take the rest from the file. One that cannot be read is found out by the first action that needs it.
      if (row.video !== '' && (row.fps === undefined || row.totalFrames === undefined))
        duration = durationOf(
          await probe()
            .then((file) => ({ ...file, ...row }))
            .catch(() => row),
        );
      episode = { sample, row, probe, regime: chooseRegime({ durationSeconds: duration, regimes }) };
    },
    async step(text) {
      if (!episode) throw new InputError('the environment was not reset: call reset(sample) before step');
      if (text === '') return over('empty', 'the turn is empty');
      try {
        return await execute(episode, parseAction(text, grammar));
      } catch (error) {
        return over('env_error', messageOf(error));
      }
    },
    async close() {
      episode = undefined;
    },
  };
}

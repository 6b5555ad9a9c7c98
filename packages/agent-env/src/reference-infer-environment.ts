/** @file The original evaluation program's loop as an environment (`--compat reference`): its parsing, its limits, its replies. */
import {
  type EndReason,
  type Environment,
  InputError,
  messageOf,
  type Observation,
  pythonStrip,
  type Sample,
} from '@frame-thinker/core';
import type { FrameSource, VideoFacts } from './frame-source.ts';
import { compactFrames } from './observations.ts';
import { chooseFrames, getFrameNumber, parseModelResponse, resizedSize } from './reference-infer.ts';
import { chooseRegime, durationOf, REFERENCE_REGIMES, type Regime, type RegimeOptions } from './regimes.ts';
import { rowFacts, sourceSize } from './sample-facts.ts';

const ANSWER = 'output answer:';
const CHOICE = /(\d+)\s+and\s+(\d+)/;

interface Episode {
  sample: Sample;
  video: string;
  fps: number;
  total: number;
  regime: Regime;
  probe: () => Promise<VideoFacts>;
}

const over = (reason: EndReason, error?: string): Observation => ({
  frames: [],
  done: true,
  reason,
  ...(error === undefined ? {} : { error }),
});

/** `reset` throws what the frame source throws on a video that cannot be read. */
export function createReferenceInferEnvironment({
  frames,
  regimes = REFERENCE_REGIMES,
}: {
  frames: FrameSource;
  regimes?: RegimeOptions;
}): Environment {
  let episode: Episode | undefined;

  async function look({ sample, video, total, regime, probe }: Episode, action: string): Promise<Observation> {
    const indices = chooseFrames(action, { total, n: regime.frames });
    const [, start, end] = CHOICE.exec(action) ?? [];
    if (!indices || start === undefined || end === undefined) return over('bad_action', 'no choice that is answered');
    try {
      const shown = await frames.get(video, indices, resizedSize(await sourceSize(sample, probe), regime));
      return {
        message: compactFrames(indices),
        frames: shown,
        done: false,
        action: { kind: 'frames', start: Number(start), end: Number(end) },
        frameIndices: indices,
      };
    } catch (error) {
      return over('decode_error', messageOf(error));
    }
  }

  function tellFrameNumber({ fps }: Episode, action: string): Observation {
    const message = getFrameNumber(action, fps);
    const [, time = '', number = ''] = /time (\S+) is: (-?\d+)\.$/.exec(message ?? '') ?? [];
    if (message === undefined) return over('bad_action', 'no time that is answered');
    const [minutes = 0, seconds = 0] = time.split(':').map(Number);
    return {
      message,
      frames: [],
      done: false,
      action: { kind: 'time', time, seconds: 60 * minutes + seconds },
      frameNumber: Number(number),
    };
  }

  return {
    async reset(sample) {
      const { video, ...known } = rowFacts(sample);
      const file = frames.probe(video);
      const { fps, totalFrames } = { ...(await file), ...known };
      const regime = chooseRegime({ durationSeconds: durationOf({ fps, totalFrames }), regimes });
      episode = { sample, video, fps, total: totalFrames, regime, probe: () => file };
    },
    async step(text) {
      if (!episode) throw new InputError('the environment was not reset: call reset(sample) before step');
      if (text === '') return over('empty', 'the turn is empty');
      const { action } = parseModelResponse(text) ?? {};
      if (action === undefined) return over('no_action', 'the turn has no think or no action');
      if (action.startsWith(ANSWER)) {
        const answer = pythonStrip(action.replaceAll(ANSWER, ''));
        return { frames: [], done: true, reason: 'answer', action: { kind: 'answer', answer } };
      }
      return action.includes('get frame') ? tellFrameNumber(episode, action) : look(episode, action);
    },
    async close() {
      episode = undefined;
    },
  };
}

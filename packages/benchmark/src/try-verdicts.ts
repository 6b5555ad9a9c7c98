/** @file What a try was worth: by the record, as training sees it, or by the original evaluation program's rules. */
import { chooseRegime, durationOf, type RegimeOptions, referenceInfer } from '@frame-thinker/agent-env';
import { ccv } from '@frame-thinker/ccv-reward';
import { ERROR_ENDS, pythonStrip, type Reward, type Sample, type Trajectory, verdict } from '@frame-thinker/core';
import type { Outcome } from './evaluation-log.ts';

export interface TryVerdict {
  outcome: Outcome;
  answer?: string;
  /** Calls that were executed; of an invalid try too. */
  toolCalls: number;
  /** Those of them that were looks. */
  choices: number;
  rules: Reward['rules'];
}

/** Judges a try. `text`: the response, all turns and observations. */
export type Judge = (trajectory: Trajectory, sample: Sample) => TryVerdict;

/** Frames a look shows in a sample's regime. */
export function framesOf(sample: Pick<Sample, 'fps' | 'totalFrames'>, regimes: RegimeOptions): number {
  return chooseRegime({ durationSeconds: durationOf(sample), regimes }).frames;
}

const assistantTurns = ({ turns }: Trajectory): Trajectory['turns'] => turns.filter(({ role }) => role === 'assistant');

/** Valid where `ccv` gives format 1; right where the normalised answer is the truth. */
export function recordJudge(regimes: RegimeOptions): Judge {
  return (trajectory, sample) => {
    const turns = assistantTurns(trajectory);
    const choices = turns.filter(({ action }) => action?.kind === 'frames').length;
    const counts = { toolCalls: trajectory.toolCalls, choices };
    if (ERROR_ENDS.includes(trajectory.end)) {
      const message = turns.at(-1)?.error ?? trajectory.end;
      return { ...counts, outcome: 'unreadable', rules: [{ name: trajectory.end, turn: turns.length - 1, message }] };
    }
    const { format, rules } = ccv(trajectory, sample, { frames: framesOf(sample, regimes) });
    const action = turns.at(-1)?.action;
    const answer = action?.kind === 'answer' ? action.answer : undefined;
    const given = answer === undefined ? {} : { answer };
    if (format !== 1 || answer === undefined) return { ...counts, ...given, outcome: 'format_error', rules };
    return { ...counts, ...given, outcome: verdict(answer, sample.groundTruth) ? 'right' : 'wrong', rules };
  };
}

/** The text that the original checks: turns and replies, one after the other. */
const transcript = ({ turns }: Trajectory): string => turns.map(({ text }) => text).join('\n');

/** The original's: its own check of the whole text; the answer is the rest of the last action, compared as a string. */
export function referenceJudge(regimes: RegimeOptions): Judge {
  return (trajectory, sample) => {
    const { outcome, ...found } = recordJudge(regimes)(trajectory, sample);
    if (outcome === 'unreadable') return { ...found, outcome };
    const checked = referenceInfer.validateReasoningProcess(transcript(trajectory), framesOf(sample, regimes));
    const last = referenceInfer.parseModelResponse(assistantTurns(trajectory).at(-1)?.text ?? '');
    const [, rest] = /^output answer:([\s\S]*)$/.exec(last?.action ?? '') ?? [];
    if (!checked.valid || rest === undefined)
      return { toolCalls: found.toolCalls, choices: found.choices, outcome: 'format_error', rules: [] };
    const answer = pythonStrip(rest);
    const { toolCalls, choices } = checked;
    return { toolCalls, choices, answer, outcome: answer === sample.groundTruth ? 'right' : 'wrong', rules: [] };
  };
}

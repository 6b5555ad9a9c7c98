/** @file What a try was worth: by the record, as training sees it, or by the original evaluation program's rules. */
import { chooseRegime, durationOf, type RegimeOptions, referenceInfer } from '@frame-thinker/agent-env';
import { ccv } from '@frame-thinker/ccv-reward';
import { ERROR_ENDS, type Reward, type Sample, type Trajectory, verdict } from '@frame-thinker/core';
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

/** The text that the original checks: turns and replies, frames as a note. */
const transcript = ({ turns }: Trajectory): string =>
  turns.map(({ role, text }) => (role === 'user' && text.includes('<image>') ? '\n[new frames]\n' : text)).join('');

/** The original's: its own check of the whole text; the answer is the rest of the last action, compared as a string. */
export function referenceJudge(regimes: RegimeOptions): Judge {
  return (trajectory, sample) => {
    const own = recordJudge(regimes)(trajectory, sample);
    if (own.outcome === 'unreadable') return own;
    const { toolCalls, choices, answer } = own;
    const checked = referenceInfer.validateReasoningProcess(transcript(trajectory), framesOf(sample, regimes));
    if (!checked.valid || answer === undefined) return { toolCalls, choices, outcome: 'format_error', rules: [] };
    const outcome = answer === sample.groundTruth ? 'right' : 'wrong';
    return { toolCalls: checked.toolCalls, choices: checked.choices, answer, outcome, rules: [] };
  };
}

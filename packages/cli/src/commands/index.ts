/** @file All commands. Each body imports what it needs when it runs, so that starting up stays quick. */
import type { Command } from '../command.ts';
import { data } from './data.ts';
import { doctor } from './doctor.ts';
import { infer } from './infer.ts';
import { merge } from './merge.ts';
import { score } from './score.ts';
import { sft } from './sft.ts';
import { train } from './train.ts';

export const COMMANDS: readonly Command[] = [train, sft, infer, merge, score, data, doctor];

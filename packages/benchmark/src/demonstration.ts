/** @file Writes one demonstration turn by turn, with a loss weight per token. */
import type { Rng } from '@frame-thinker/core';
import { clock, type FrameRange, questionText, type SynthQuestion } from './synth-questions.ts';
import type { SceneEvent } from './synth-scene.ts';
import { LETTERS } from './synth-words.ts';
import { type SequenceEncoder, type TokenSequence, TokenSequenceBuilder } from './token-sequence.ts';

/** Loss weights by what a token says; everything else that the policy writes has weight 1. */
export interface DemonstrationWeights {
  letter: number;
  verdict: number;
  seen: number;
  option: number;
  /** Times and frame numbers. */
  number: number;
  /** What nothing before it tells: a guess, the place of a look at random. */
  chance: number;
}

export interface DemonstrationOptions extends SequenceEncoder {
  /** Frames a look, as the environment gives them. */
  frames: number;
  weights: DemonstrationWeights;
}

/** Positions that one frame takes in a look: `frame 4811: `, vision markers, the side of its grid, newline. */
const POSITIONS_PER_FRAME = 15;

const OPEN_USER = '<|im_start|>user\n';
const NEXT_USER = `\n${OPEN_USER}`;
const OPEN_ASSISTANT = '<|im_end|>\n<|im_start|>assistant\n';

export class Demonstration {
  readonly #sequence: TokenSequenceBuilder;
  readonly #question: SynthQuestion;
  readonly #options: DemonstrationOptions;

  constructor(question: SynthQuestion, options: DemonstrationOptions) {
    this.#sequence = new TokenSequenceBuilder(options);
    this.#question = question;
    this.#options = options;
  }

  /** `frame {i}: <image>` lines. */
  #show(frames: readonly number[]): void {
    frames.forEach((index, i) => {
      this.#sequence.add(`${i > 0 ? '\n' : ''}frame ${index}: `).frame(index);
    });
  }

  /** Skips the positions that the frames left out would have taken: heads then learn to match by content, not by distance. */
  #skip(rng: Rng, shown: number, looks = 1): void {
    const missing = this.#options.frames * looks - shown;
    if (missing > 0) this.#sequence.jump(rng.below(missing * POSITIONS_PER_FRAME + 1));
  }

  prompt(frames: readonly number[], jump?: { rng: Rng; looks?: number }): this {
    this.#sequence.add(`${OPEN_USER}${questionText(this.#question)}\n\n`);
    this.#show(frames);
    if (jump) this.#skip(jump.rng, frames.length, jump.looks);
    this.#sequence.add(OPEN_ASSISTANT);
    return this;
  }

  /** @param opening weight of the words that choose this habit */
  askTime(seconds: number, opening = 1): this {
    const { number } = this.#options.weights;
    const at = ` ${clock(seconds)}`;
    this.#sequence
      .add('<think> i', opening)
      .add(' need the frame number at', 1)
      .add(at, number)
      .add('</think><action> get frame number at time', 1)
      .add(at, number)
      .add('</action><|im_end|>', 1);
    return this;
  }

  timeReply(seconds: number, frame: number): this {
    this.#sequence.add(`${NEXT_USER}Frame number at time ${clock(seconds)} is: ${frame}.${OPEN_ASSISTANT}`);
    return this;
  }

  /** Opens a turn's think; weight 0 where whole demonstrations alone teach which habit to begin. */
  think(weight = 1): this {
    this.#sequence.add('<think>', weight);
    return this;
  }

  /** @param part letter of the part looked at, on the line that names it */
  look(
    [a, b]: FrameRange,
    { part, first = 1, random = false }: { part?: string; first?: number; random?: boolean } = {},
  ): this {
    const { number, chance } = this.#options.weights;
    const digits = random ? chance : number;
    if (part !== undefined) this.#sequence.add(` ${part}`, random ? chance : first);
    this.#sequence
      .add(' look', part === undefined ? first : 1)
      .add(' between', 1)
      .add(` ${a}`, digits)
      .add(' and', 1)
      .add(` ${b}`, number)
      .add('</think><action> choose frames between', 1)
      .add(` ${a}`, number)
      .add(' and', 1)
      .add(` ${b}`, number)
      .add('</action><|im_end|>', 1);
    return this;
  }

  lookReply(frames: readonly number[], jump?: Rng): this {
    this.#sequence.add(NEXT_USER);
    this.#show(frames);
    if (jump) this.#skip(jump, frames.length);
    this.#sequence.add(OPEN_ASSISTANT);
    return this;
  }

  see({ colour, shape }: SceneEvent, learnt: boolean): this {
    const { seen } = this.#options.weights;
    const weight = (w: number) => (learnt ? w : 0);
    this.#sequence.add('<think> i see a', weight(1)).add(` ${colour} ${shape}`, weight(seen)).add('.', weight(1));
    return this;
  }

  guess(word: string): this {
    this.#sequence.add('<think> guess', 1).add(` ${word}`, this.#options.weights.chance).add('.', 1);
    return this;
  }

  /** `red yes. square no. B no.`: compares the thing asked for with what was just seen, word by word. */
  compare(part: string, seen: SceneEvent): this {
    const { verdict, option } = this.#options.weights;
    const { colour, shape } = this.#question.event;
    const said: string[] = [seen.colour, seen.shape];
    for (const word of [colour, shape])
      this.#sequence
        .add(` ${word}`, option)
        .add(said.includes(word) ? ' yes' : ' no', verdict)
        .add('.', 1);
    return this.verdict(part, said.includes(colour) && said.includes(shape));
  }

  verdict(part: string, yes: boolean): this {
    this.#sequence
      .add(` ${part}`, 1)
      .add(yes ? ' yes' : ' no', this.#options.weights.verdict)
      .add('.', 1);
    return this;
  }

  /** Goes through the options ("yes" = the option's word was just said). Returns the letter of the last yes, else A. */
  #walk(said: readonly string[]): string {
    const { verdict, option } = this.#options.weights;
    let chosen = 'A';
    this.#question.options.forEach((word, i) => {
      const yes = said.includes(word);
      if (yes) chosen = LETTERS[i]!;
      this.#sequence
        .add(`\n${LETTERS[i]}:`, 1)
        .add(` ${word}`, option)
        .add(yes ? ' yes' : ' no', verdict)
        .add('.', 1);
    });
    return chosen;
  }

  answerBy(said: readonly string[]): this {
    return this.answer(this.#walk(said));
  }

  answer(letter: string): this {
    this.#sequence
      .add('</think><action> output answer:', 1)
      .add(` ${letter}`, this.#options.weights.letter)
      .add('</action><|im_end|>', 1);
    return this;
  }

  build(): TokenSequence {
    return this.#sequence.build();
  }
}

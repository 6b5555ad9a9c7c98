/** @file The words of the synthetic task: everything that its questions, demonstrations and replies are made of. */

/** Colours by name, RGB. */
export const COLOURS = {
  red: [224, 32, 32],
  green: [32, 192, 32],
  blue: [32, 64, 224],
  yellow: [232, 232, 32],
  magenta: [208, 32, 208],
  cyan: [32, 208, 208],
  orange: [255, 136, 0],
  white: [255, 255, 255],
} as const satisfies Record<string, readonly [number, number, number]>;
export type Colour = keyof typeof COLOURS;
export const COLOUR_NAMES = Object.keys(COLOURS) as Colour[];

/** Shapes that plain boxes can draw. */
export const SHAPES = ['square', 'bar', 'pole', 'cross'] as const;
export type Shape = (typeof SHAPES)[number];

export const LETTERS = ['A', 'B', 'C', 'D'] as const;
export type Letter = (typeof LETTERS)[number];

/** Words that occur after a space; each becomes one token together with it. */
export const SPACED_WORDS: readonly string[] = [
  ...['colour', 'shape', 'is', 'shown', 'at', 'i', 'need', 'the', 'frame', 'number', 'time', 'get', 'choose', 'frames'],
  ...['between', 'and', 'output', 'answer', 'look', 'see', 'a', 'guess', 'yes', 'no', 'video', 'ends', 'to'],
  ...COLOUR_NAMES,
  ...SHAPES,
  ...LETTERS,
];

/** Tokens that occur without a space before them. */
export const BARE_WORDS: readonly string[] = [
  ...['What', 'Where', 'Frame', 'frame', 'system', 'user', 'assistant'],
  ...['<think>', '</think>', '<action>', '</action>'],
  ...LETTERS.map((letter) => `${letter}:`),
];

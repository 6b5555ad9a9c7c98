/** @file Seeded scenes: a long dark video in which, every quarter of a minute, a coloured shape shows for a few seconds. */
import { createRng } from '@frame-thinker/core';
import type { Scene, SceneBox } from '@frame-thinker/video';
import { COLOUR_NAMES, COLOURS, type Colour, SHAPES, type Shape } from './synth-words.ts';

export const SPLITS = ['train', 'val', 'test', 'sft'] as const;
export type Split = (typeof SPLITS)[number];

export const SYNTH_FPS = 24;
export const SYNTH_SIZE = { width: 224, height: 112 } as const;
/** One event starts in each slot, in seconds. */
const SLOT = 15;
/** Width and height of a shape, as parts of the video's height (what plain boxes can draw and a small tower can tell apart). */
const EXTENT: Record<Shape, readonly [number, number]> = {
  square: [0.42, 0.42],
  bar: [0.85, 0.16],
  pole: [0.16, 0.62],
  cross: [0.5, 0.5],
};

/** A shape that shows on frames start..end, both included. */
export interface SceneEvent {
  colour: Colour;
  shape: Shape;
  start: number;
  end: number;
}

export interface SynthVideo {
  /** File name without folder. */
  name: string;
  scene: Scene;
  events: SceneEvent[];
}

const even = (x: number): number => 2 * Math.round(x / 2);

function boxesOf(
  shape: Shape,
  place: { x: number; y: number; w: number; h: number },
): Omit<SceneBox, 'color' | 'start' | 'end'>[] {
  const { x, y, w, h } = place;
  if (shape !== 'cross') return [place];
  const bar = even(Math.max(3, w / 4));
  const inset = even((w - bar) / 2);
  return [
    { x: x + inset, y, w: bar, h },
    { x, y: y + inset, w, h: bar },
  ];
}

/** The video number `index` of a split: 300 to 600 seconds at 24 fps. The same seed gives the same scene, and splits never share one. */
export function synthVideo({ seed, split, index }: { seed: number; split: Split; index: number }): SynthVideo {
  const rng = createRng(seed, 'synth', SPLITS.indexOf(split), index);
  const { width, height } = SYNTH_SIZE;
  const seconds = 300 + rng.below(301);
  const frames = seconds * SYNTH_FPS;
  const background: [number, number, number] = [32, 36, 40].map((c) => c + rng.below(17) - 8) as [
    number,
    number,
    number,
  ];
  const floor = even(height / 6);
  const events: SceneEvent[] = [];
  const boxes: SceneBox[] = [];
  for (let slot = 1; slot < Math.floor(seconds / SLOT); slot++) {
    const start = Math.floor((slot * SLOT + 1 + rng.uniform() * 6.5) * SYNTH_FPS);
    const end = start + Math.floor((2.5 + rng.uniform() * 1.5) * SYNTH_FPS);
    const event: SceneEvent = { colour: rng.pick(COLOUR_NAMES), shape: rng.pick(SHAPES), start, end };
    const [w, h] = EXTENT[event.shape].map((part) => even(part * height)) as [number, number];
    const place = {
      x: 2 + even(rng.below(width - w - 4)),
      y: 2 + even(rng.below(Math.max(1, height - h - floor - 4))),
      w,
      h,
    };
    events.push(event);
    for (const box of boxesOf(event.shape, place))
      boxes.push({ ...box, color: [...COLOURS[event.colour]], start, end });
  }
  const size = even(height / 7);
  return {
    name: `${split}_${String(index).padStart(3, '0')}.mp4`,
    scene: {
      width,
      height,
      fps: SYNTH_FPS,
      frames,
      background,
      boxes,
      // A grey box that jumps every second: movement that never answers a question.
      distractor: { size, y: height - size - 2, stride: 37, phase: rng.below(200), color: [128, 128, 128] },
    },
    events,
  };
}

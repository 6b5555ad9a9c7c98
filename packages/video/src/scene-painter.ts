/** @file Draws a scene straight into YUV 4:2:0 planes (BT.601, limited range), redrawing only frames on which something changes. */
import { InputError } from '@frame-thinker/core';
import type { Rational, Scene, SceneBox } from './types.ts';

/** Planes Y, U, V and bytes per row of each. */
export interface Planes {
  data: readonly Uint8Array[];
  strides: readonly number[];
}

type Rgb = readonly [number, number, number];

/** BT.601: Y in 16..235, U and V around 128. */
export function toYuv([r, g, b]: Rgb): [number, number, number] {
  return [
    Math.round(16 + 0.256788 * r + 0.504129 * g + 0.097906 * b),
    Math.round(128 - 0.148223 * r - 0.290993 * g + 0.439216 * b),
    Math.round(128 + 0.439216 * r - 0.367788 * g - 0.071427 * b),
  ];
}

export function parseColor(color: string | Rgb): Rgb {
  if (typeof color !== 'string') {
    if (color.length === 3 && color.every((c) => Number.isInteger(c) && c >= 0 && c <= 255)) return color;
  } else if (/^#[0-9a-f]{6}$/i.test(color)) {
    const value = Number.parseInt(color.slice(1), 16);
    return [value >> 16, (value >> 8) & 255, value & 255];
  }
  throw new InputError(`${JSON.stringify(color)} is no colour: give '#rrggbb' or three integers from 0 to 255`);
}

export function frameRate(fps: number | Rational): Rational {
  const rate = typeof fps === 'number' ? { num: fps, den: 1 } : fps;
  if (Number.isInteger(rate.num) && Number.isInteger(rate.den) && rate.num > 0 && rate.den > 0) return rate;
  throw new InputError(`a scene's fps must be a positive integer or a rational of such, not ${JSON.stringify(fps)}`);
}

/** @throws InputError when the scene cannot be drawn. */
export function checkScene(scene: Scene): void {
  const { width, height, frames } = scene;
  for (const [name, side] of Object.entries({ width, height }))
    if (!(Number.isInteger(side) && side > 0 && side % 2 === 0))
      throw new InputError(`a scene's ${name} must be a positive even integer, not ${side}`);
  if (!(Number.isInteger(frames) && frames > 0))
    throw new InputError(`a scene's number of frames must be a positive integer, not ${frames}`);
  frameRate(scene.fps);
  parseColor(scene.background);
  for (const box of scene.boxes) parseColor(box.color);
  const { distractor } = scene;
  if (distractor && !(distractor.size > 0 && distractor.size < width))
    throw new InputError(`a distractor's size must be between 0 and the width ${width}, not ${distractor.size}`);
}

/**
 * A function that brings the planes to a frame's picture; frames must be drawn in ascending order into the same planes.
 * It returns whether anything changed.
 */
export function createPainter(scene: Scene): (frame: number, planes: Planes) => boolean {
  checkScene(scene);
  const { width, boxes, distractor } = scene;
  const background = toYuv(parseColor(scene.background));
  const rate = frameRate(scene.fps);
  const byStart = boxes.map((box, order) => ({ box, order })).sort((a, b) => a.box.start - b.box.start);
  let active: { box: SceneBox; order: number }[] = [];
  let next = 0;
  let drawnSecond = -1;
  let drawn = false;

  return (frame, planes) => {
    const second = Math.floor((frame * rate.den) / rate.num);
    const remaining = active.filter(({ box }) => box.end >= frame);
    let changed = !drawn || remaining.length < active.length || (distractor !== undefined && second !== drawnSecond);
    active = remaining;
    for (; next < byStart.length && byStart[next]!.box.start <= frame; next++) {
      if (byStart[next]!.box.end < frame) continue;
      active.push(byStart[next]!);
      changed = true;
    }
    if (!changed) return false;
    for (const plane of [0, 1, 2] as const) planes.data[plane]!.fill(background[plane]);
    if (distractor) {
      const { size, y, stride, phase = 0, color = [128, 128, 128] } = distractor;
      fillBox(planes, scene, { x: (phase + stride * second) % (width - size), y, w: size, h: size }, color);
    }
    // Later boxes of the scene cover earlier ones, whenever they began.
    active.sort((a, b) => a.order - b.order);
    for (const { box } of active) fillBox(planes, scene, box, box.color);
    drawn = true;
    drawnSecond = second;
    return true;
  };
}

function fillBox(
  { data, strides }: Planes,
  size: { width: number; height: number },
  { x, y, w, h }: { x: number; y: number; w: number; h: number },
  color: Rgb,
): void {
  const yuv = toYuv(color);
  for (const plane of [0, 1, 2] as const) {
    // A chroma sample stands for 2 x 2 pixels: one that the box touches takes its colour.
    const scale = plane === 0 ? 1 : 2;
    const left = Math.floor(Math.max(0, x) / scale);
    const right = Math.ceil(Math.min(size.width, x + w) / scale);
    const bottom = Math.ceil(Math.min(size.height, y + h) / scale);
    for (let row = Math.floor(Math.max(0, y) / scale); row < bottom; row++)
      if (right > left) data[plane]!.fill(yuv[plane], row * strides[plane]! + left, row * strides[plane]! + right);
  }
}

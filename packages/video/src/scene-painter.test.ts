import fc from 'fast-check';
import { expect, test } from 'vitest';
import { createPainter, type Planes, parseColor, toYuv } from './scene-painter.ts';
import type { Scene, SceneBox } from './types.ts';

const planesOf = (width: number, height: number, strides = [width, width / 2, width / 2]): Planes => ({
  data: [0, 1, 2].map((p) => new Uint8Array(strides[p]! * (p === 0 ? height : height / 2))),
  strides,
});

/** Each sample on its own: the last box of the scene that covers any of its pixels. */
function expected(scene: Scene, frame: number, plane: 0 | 1 | 2): number[] {
  const scale = plane === 0 ? 1 : 2;
  const second = Math.floor(frame / (scene.fps as number));
  const d = scene.distractor!;
  const moving = { x: (d.phase! + d.stride * second) % (scene.width - d.size), y: d.y, w: d.size, h: d.size };
  const shapes = [
    { ...moving, color: [128, 128, 128] as const },
    ...scene.boxes.filter(({ start, end }) => start <= frame && frame <= end),
  ];
  const out: number[] = [];
  for (let y = 0; y < scene.height; y += scale)
    for (let x = 0; x < scene.width; x += scale) {
      const hit = shapes.findLast(
        (b) => b.x < x + scale && b.x + b.w > x && b.y < y + scale && b.y + b.h > y && b.w > 0 && b.h > 0,
      );
      out.push(toYuv(hit ? hit.color : parseColor(scene.background))[plane]);
    }
  return out;
}

const box = fc.record({
  x: fc.integer({ min: -4, max: 20 }),
  y: fc.integer({ min: -4, max: 12 }),
  w: fc.integer({ min: 1, max: 9 }),
  h: fc.integer({ min: 1, max: 9 }),
  color: fc.tuple(fc.nat(255), fc.nat(255), fc.nat(255)),
  start: fc.integer({ min: -2, max: 12 }),
  end: fc.integer({ min: -2, max: 12 }),
}) satisfies fc.Arbitrary<SceneBox>;

test('painting frame after frame gives the picture that each frame has by itself', () => {
  fc.assert(
    fc.property(fc.array(box, { maxLength: 5 }), fc.nat(9), (boxes, phase) => {
      const distractor = { size: 3, y: 7, stride: 5, phase };
      const scene: Scene = { width: 16, height: 10, fps: 4, frames: 12, background: '#102030', boxes, distractor };
      const planes = planesOf(16, 10);
      const paint = createPainter(scene);
      for (let frame = 0; frame < 12; frame++) {
        paint(frame, planes);
        for (const plane of [0, 1, 2] as const) expect([...planes.data[plane]!]).toEqual(expected(scene, frame, plane));
      }
    }),
    { numRuns: 60 },
  );
});

test('a frame on which nothing changes is left alone', () => {
  const paint = createPainter({
    width: 8,
    height: 8,
    fps: 24,
    frames: 50,
    background: [0, 0, 0],
    boxes: [{ x: 0, y: 0, w: 2, h: 2, color: [255, 0, 0], start: 10, end: 19 }],
  });
  const planes = planesOf(8, 8);
  const changed = Array.from({ length: 50 }, (_, i) => paint(i, planes));
  expect(changed.flatMap((c, i) => (c ? [i] : []))).toEqual([0, 10, 20]);
});

test('colours follow BT.601 in the limited range', () => {
  expect(toYuv([0, 0, 0])).toEqual([16, 128, 128]);
  expect(toYuv([255, 255, 255])).toEqual([235, 128, 128]);
  expect(toYuv([255, 0, 0])).toEqual([81, 90, 240]);
  expect(parseColor('#20C0ff')).toEqual([32, 192, 255]);
});

test('scenes that cannot be drawn are refused', () => {
  const scene: Scene = { width: 8, height: 8, fps: 24, frames: 5, background: '#000000', boxes: [] };
  for (const bad of [
    { width: 7 },
    { height: 0 },
    { frames: 0 },
    { fps: 0.5 },
    { fps: { num: 1, den: 0 } },
    { background: 'red' },
    { background: [0, 0, 256] as const },
    { distractor: { size: 8, y: 0, stride: 1 } },
  ])
    expect(() => createPainter({ ...scene, ...bad }), JSON.stringify(bad)).toThrow(/scene|colour|distractor/);
});

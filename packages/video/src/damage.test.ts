import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it, test } from 'vitest';
import { CountedDamageTracker, DamageTracker } from './damage.ts';
import { FrameUnavailableError } from './errors.ts';
import { readIndexCode } from './index-code.ts';
import { openVideo, probeVideo } from './reader.ts';
import { H264_VIDEOS, renderBurntIn } from './testing/burnt-in-videos.ts';

const whole = { whole: true, key: false };
const torn = { whole: false, key: false };

describe('by time stamps', () => {
  // In decoding order: I0 P4 B2 | I8 B6 P12 B10; B6 is shown before its key frame.
  const packets = [0, 4, 2, 8, 6, 12, 10];
  const shown = [0, 2, 4, 6, 8, 10, 12];
  const clean = (damagedPacket: number | undefined, damagedFrame?: number): number[] => {
    const tracker = new DamageTracker(Float64Array.of(0, 8));
    for (const pts of packets) tracker.sent(pts, pts !== damagedPacket);
    return shown.filter((pts) => tracker.received(pts, pts === damagedFrame ? torn : whole));
  };

  it('all is clean without damage', () => {
    expect(clean(undefined)).toEqual(shown);
  });
  it('a lost packet takes what was decoded after it with it, up to the next key frame', () => {
    expect(clean(4)).toEqual([0, 8, 10, 12]);
    expect(clean(12)).toEqual([0, 2, 4, 6, 8]);
    expect(clean(8)).toEqual([0, 2, 4]);
  });
  it('a leading picture takes only its like with it', () => {
    expect(clean(6)).toEqual([0, 2, 4, 8, 10, 12]);
    expect(clean(undefined, 6)).toEqual([0, 2, 4, 8, 10, 12]);
  });
  it('a frame that came out damaged counts as a lost packet', () => {
    expect(clean(undefined, 4)).toEqual([0, 2, 8, 10, 12]);
  });
  it('a seek begins anew', () => {
    const tracker = new DamageTracker(Float64Array.of(0, 8));
    tracker.sent(0, false);
    tracker.restart();
    tracker.sent(8, true);
    expect(tracker.received(8, whole)).toBe(true);
  });
});

test('by count: damage lasts to the next key frame, a packet without a frame for good', () => {
  const tracker = new CountedDamageTracker();
  expect([whole, torn, whole, { whole: true, key: true }, whole].map((state) => tracker.received(0, state))).toEqual([
    ...[true, false, false, true, true],
  ]);
  tracker.sent(0, false);
  expect(tracker.received(0, { whole: true, key: true })).toBe(false);
});

// Containers whose list of frames lies apart: in others a lost packet is a frame less, and the k-th frame another one.
describe('a file with damaged bytes gives its own frames or none', () => {
  let folder = '';
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'video-damage-'));
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  test.each(H264_VIDEOS.filter(({ file, rotated }) => !rotated && /^(plain|b3|opengop)\.mp4$/.test(file)))(
    '$name',
    async (video) => {
      const good = await renderBurntIn(folder, { ...video, file: `good-${video.file}` });
      const bad = join(folder, `bad-${video.file}`);
      cpSync(good, bad);
      const bytes = readFileSync(bad);
      bytes.fill(0xa5, Math.floor(bytes.length * 0.4), Math.floor(bytes.length * 0.4) + 400);
      writeFileSync(bad, bytes);
      const { totalFrames } = await probeVideo(bad, { cacheDir: folder });
      const all = Array.from({ length: totalFrames }, (_, i) => i);
      const scattered = all.toSorted((a, b) => ((a * 7919) % totalFrames) - ((b * 7919) % totalFrames));
      for (const indices of [all, scattered]) {
        const reader = await openVideo(bad, { cacheDir: folder });
        const wrong: number[] = [];
        let read = 0;
        for (const index of indices)
          try {
            const [frame] = await reader.frames([index]);
            read++;
            if (readIndexCode(frame!) !== index + (video.first ?? 0)) wrong.push(index);
          } catch (error) {
            expect(error).toBeInstanceOf(FrameUnavailableError);
          }
        await reader.close();
        expect(wrong).toEqual([]);
        expect(read).toBeGreaterThan(totalFrames / 4);
      }
    },
  );
});

import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createRng } from '@frame-thinker/core';
import { describe, expect, it } from 'vitest';
import { prepareSynth } from './synth-dataset.ts';
import {
  clock,
  type MomentQuestion,
  makeQuestion,
  type PlaceQuestion,
  QUESTION_KINDS,
  type QuestionKind,
  questionRow,
  questionsOf,
  questionText,
} from './synth-questions.ts';
import { SPLITS, SYNTH_FPS, SYNTH_SIZE, synthVideo } from './synth-scene.ts';
import { LETTERS } from './synth-words.ts';

const videos = SPLITS.flatMap((split) => [0, 1, 2].map((index) => synthVideo({ seed: 5, split, index })));

describe('synthetic scenes', () => {
  it('repeat for one seed and differ between seeds, splits and videos', () => {
    expect(synthVideo({ seed: 5, split: 'val', index: 1 })).toEqual(synthVideo({ seed: 5, split: 'val', index: 1 }));
    const scenes = new Set(
      [...videos, synthVideo({ seed: 6, split: 'train', index: 0 })].map(({ scene }) => JSON.stringify(scene)),
    );
    expect(scenes.size).toBe(videos.length + 1);
  });

  it('last 5 to 10 minutes, with boxes inside the picture on the chroma grid and events that do not overlap', () => {
    for (const { scene, events } of videos) {
      const seconds = scene.frames / SYNTH_FPS;
      expect(seconds).toBeGreaterThanOrEqual(300);
      expect(seconds).toBeLessThanOrEqual(600);
      for (const { x, y, w, h, start, end } of scene.boxes) {
        for (const side of [x, y, w, h]) expect(side % 2).toBe(0);
        expect(x + w).toBeLessThanOrEqual(SYNTH_SIZE.width);
        expect(y + h).toBeLessThanOrEqual(scene.distractor!.y);
        expect(end).toBeLessThan(scene.frames);
        expect(end - start).toBeGreaterThanOrEqual(2.5 * SYNTH_FPS - 1);
      }
      events.slice(1).forEach((event, i) => {
        expect(event.start).toBeGreaterThan(events[i]!.end);
      });
    }
  });
});

describe('synthetic questions', () => {
  const rng = createRng(3, 'synth', 9, 9);
  const questions = Array.from({ length: 600 }, (_, i) =>
    makeQuestion(videos[i % videos.length]!, rng, QUESTION_KINDS),
  );
  const moments = questions.filter((question): question is MomentQuestion => question.kind !== 'place');
  const places = questions.filter((question): question is PlaceQuestion => question.kind === 'place');

  it('ask for a moment well inside an event, and the right option is the event', () => {
    expect(moments.length).toBeGreaterThan(300);
    for (const { event, seconds, kind, options, answer } of moments) {
      expect(seconds * SYNTH_FPS).toBeGreaterThanOrEqual(event.start + 15);
      expect(seconds * SYNTH_FPS).toBeLessThanOrEqual(event.end - 15);
      expect(options[LETTERS.indexOf(answer)]).toBe(event[kind]);
      expect(new Set(options).size).toBe(4);
    }
  });

  it('ask where a thing is, which a look at one of the four parts shows, and at no other', () => {
    expect(places.length).toBeGreaterThan(150);
    for (const question of places) {
      const { event, video, parts, options, answer } = question;
      expect(questionText(question)).toContain(`Where is a ${event.colour} ${event.shape} shown?`);
      expect(options).toEqual(parts.map(({ range }) => range.join(' to ')));
      parts.forEach(({ range: [first, last] }, i) => {
        const end = Math.min(last, video.scene.frames);
        expect(end - first).toBeGreaterThan(40);
        // The eight frames that the environment shows of this range.
        const frames = Array.from({ length: 8 }, (_, k) => Math.trunc(first + 1 + ((end - first - 2) * k) / 7));
        const seen = new Set(
          frames.flatMap((frame) => video.events.filter(({ start, end }) => start <= frame && frame <= end)),
        );
        expect([...seen]).toEqual([parts[i]!.event]);
        const asked = parts[i]!.event.colour === event.colour && parts[i]!.event.shape === event.shape;
        expect(asked).toBe(LETTERS[i] === answer);
      });
    }
  });

  it('put the right option at every place about equally often', () => {
    for (const letter of LETTERS)
      expect(questions.filter(({ answer }) => answer === letter).length).toBeGreaterThan(60);
  });

  it('are rarely answered by 8 or 12 uniform frames', () => {
    for (const n of [8, 12]) {
      const shown = questions.filter(({ event, video }) =>
        Array.from({ length: n }, (_, i) => Math.trunc(((video.scene.frames - 1) * i) / (n - 1))).some(
          (f) => event.start <= f && f <= event.end,
        ),
      );
      expect(shown.length / questions.length).toBeLessThan(0.12);
    }
  });

  it('do not repeat an event and kind within a video', () => {
    const [video] = videos;
    const asked = { seed: 5, split: 'train', index: 0, count: 20, kinds: ['colour', 'shape'] } as const;
    const made = questionsOf(video!, asked);
    expect(new Set(made.map(({ kind, event }) => `${kind} ${event.start}`)).size).toBe(20);
    expect(questionsOf(video!, asked)).toEqual(made);
    const all = questionsOf(video!, { ...asked, kinds: QUESTION_KINDS });
    expect(new Set(all.map(({ kind }) => kind)).size).toBe(3);
  });

  it('of a data file are of the kinds asked for, and the same seed has the same rows', () => {
    const root = mkdtempSync(join(tmpdir(), 'ft-synth-'));
    const kindsOf = (kinds: readonly QuestionKind[]): string[] => {
      const { files } = prepareSynth({ seed: 5, root, kinds, splits: { val: { videos: 2, questionsPerVideo: 12 } } });
      const rows = readFileSync(files.val!, 'utf8').trim().split('\n');
      return [...new Set(rows.map((row) => JSON.parse(row).extra_info.kind as string))].sort();
    };
    expect(kindsOf(['place'])).toEqual(['place']);
    expect(kindsOf(QUESTION_KINDS)).toEqual(['colour', 'place', 'shape']);
    const first = readFileSync(join(root, '5/val.jsonl'), 'utf8');
    kindsOf(['colour']);
    kindsOf(QUESTION_KINDS);
    expect(readFileSync(join(root, '5/val.jsonl'), 'utf8')).toBe(first);
    rmSync(root, { recursive: true });
  });

  it('become rows in verl form', () => {
    const [question] = moments;
    const row = questionRow(question!, { split: 'val', index: 4 });
    expect(row).toMatchObject({
      data_source: 'synth',
      prompt: [{ role: 'user', content: questionText(question!) }],
      reward_model: { ground_truth: question!.answer },
      extra_info: {
        index: 4,
        video_path: `videos/${question!.video.name}`,
        total_frames: question!.video.scene.frames,
      },
    });
    expect(questionText(question!)).toContain(`at ${clock(question!.seconds)}?\nA: `);
    expect(clock(605)).toBe('10:05');
  });
});

import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { createTracker, lastLine, rewindJsonl, summaryLine } from './tracker.ts';

const dir = mkdtempSync(join(tmpdir(), 'ft-tracker-'));
afterAll(() => rmSync(dir, { recursive: true }));

describe('tracker', () => {
  it('appends one line a step and prints what tells whether it learns', () => {
    const printed: string[] = [];
    const metricsFile = join(dir, 'run', 'metrics.jsonl');
    const tracker = createTracker({
      metricsFile,
      eventsFile: join(dir, 'run', 'events.jsonl'),
      print: (line) => printed.push(line),
    });
    tracker.log(1, { 'critic/score/mean': 0.25 });
    tracker.log(2, { 'critic/score/mean': 0.5 });
    expect(
      readFileSync(metricsFile, 'utf8')
        .split('\n')
        .filter(Boolean)
        .map((line) => JSON.parse(line)),
    ).toEqual([
      { step: 1, 'critic/score/mean': 0.25 },
      { step: 2, 'critic/score/mean': 0.5 },
    ]);
    expect(printed).toEqual(['step 1  reward 0.25', 'step 2  reward 0.5']);
    expect(summaryLine({ 'timing_s/step': 1.234 })).toBe('step 1.23s');
    expect(summaryLine({ 'agent/error/decode_error': 2, 'critic/acc/mean': 0.5 })).toBe(
      'acc 0.5  left out 2 (decode_error)',
    );
  });

  it('rewinds to a step and drops a torn last line', () => {
    const file = join(dir, 'rewind.jsonl');
    writeFileSync(file, '{"step":1}\n{"step":2}\n{"step":3}\n{"st');
    rewindJsonl(file, 2);
    expect(readFileSync(file, 'utf8')).toBe('{"step":1}\n{"step":2}\n');
    writeFileSync(file, '{"step":1}\n{"st');
    rewindJsonl(file, 5);
    expect(readFileSync(file, 'utf8')).toBe('{"step":1}\n');
    rewindJsonl(join(dir, 'absent.jsonl'), 1);
    writeFileSync(file, '{"step":1}\n{"st\n{"step":3}\n');
    expect(() => rewindJsonl(file, 5)).toThrow(/rewind\.jsonl:2: damaged/);
  });

  it('has the line of a step before its checkpoint, and the same line with more after', () => {
    const metricsFile = join(dir, 'draft', 'metrics.jsonl');
    const tracker = createTracker({ metricsFile, eventsFile: join(dir, 'draft', 'events.jsonl') });
    const lines = (): unknown[] =>
      readFileSync(metricsFile, 'utf8')
        .split('\n')
        .filter(Boolean)
        .map((line) => JSON.parse(line) as unknown);
    tracker.draft(1, { a: 1.25 });
    expect(lines()).toEqual([{ step: 1, a: 1.25 }]);
    tracker.log(1, { a: 1.25, saved: 2 });
    tracker.log(2, { a: 2 });
    tracker.draft(3, { a: 3.125 });
    tracker.log(3, { a: 3 });
    expect(lines()).toEqual([
      { step: 1, a: 1.25, saved: 2 },
      { step: 2, a: 2 },
      { step: 3, a: 3 },
    ]);
  });

  it('shows the last line of a run whose gradient was not finite', () => {
    const file = join(dir, 'nan.jsonl');
    writeFileSync(file, `${JSON.stringify({ step: 1, 'actor/grad_norm': Number.NaN, 'actor/pg_loss': 0.5 })}\n`);
    expect(lastLine(file)).toBe('loss 0.5  grad NaN');
  });
});

import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { createTracker, rewindJsonl, summaryLine } from './tracker.ts';

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
  });
});

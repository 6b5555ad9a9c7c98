import { describe, expect, it } from 'vitest';
import { createProgress, formatDuration } from './progress.ts';

function harness(isTTY: boolean, options: { total?: number; start?: number; logEvery?: number } = {}) {
  let time = 0;
  let text = '';
  const stream = {
    isTTY,
    columns: 200,
    write: (part: string) => {
      text += part;
    },
  };
  const bar = createProgress({ label: 'train', unit: 'step', stream, now: () => time, ...options });
  return {
    bar,
    wait: (ms: number) => {
      time += ms;
    },
    text: () => text,
  };
}

describe('createProgress', () => {
  it('redraws one line with rate and ETA on a terminal', () => {
    const { bar, wait, text } = harness(true, { total: 10 });
    for (let i = 0; i < 5; i++) {
      wait(2000);
      bar.tick('loss 1');
    }
    expect(text().split('\n')).toHaveLength(1);
    expect(text().split('\r').at(-1)).toContain('5/10  2.0 s/step  10s  ETA 10s  loss 1');
    bar.end();
    expect(text().endsWith('\n')).toBe(true);
  });

  it('writes few plain lines to a log, and always the last', () => {
    const { bar, wait, text } = harness(false, { total: 1000, logEvery: 1000 });
    for (let i = 0; i < 1000; i++) {
      wait(10);
      bar.tick();
    }
    bar.end('done');
    bar.tick();
    const lines = text().trimEnd().split('\n');
    expect(lines.length).toBeGreaterThanOrEqual(10);
    expect(lines.length).toBeLessThanOrEqual(12);
    expect(lines.at(-1)).toBe('train  1000/1000  100 steps/s  10s  done');
    expect(text()).not.toMatch(/[\r█]/);
  });

  it('counts what was done before in the bar and not in the rate', () => {
    const { bar, wait, text } = harness(false, { total: 20, start: 10 });
    wait(5000);
    bar.set(15);
    expect(text()).toContain('15/20  1.0 steps/s  5s  ETA 5s');
  });

  it('has no plural of bytes', () => {
    let text = '';
    const stream = { write: (part: string) => (text += part) };
    let time = 0;
    const bar = createProgress({ label: 'merge', unit: 'MB', total: 900, stream, now: () => time });
    time = 2000;
    bar.set(600);
    expect(text).toContain('600/900  300 MB/s  2s  ETA 1s');
  });

  it('cuts the line to the width of the terminal', () => {
    let text = '';
    const stream = { isTTY: true, columns: 20, write: (part: string) => (text += part) };
    createProgress({ label: 'a long label', total: 5, stream, now: () => 0 }).set(1, 'a long note');
    expect(text.replace('\r\u001b[2K', '').length).toBeLessThan(20);
  });

  it('prints a line of its own above the bar', () => {
    const { bar, text } = harness(true, { total: 2 });
    bar.tick();
    bar.print('hello');
    expect(text()).toContain('hello\n');
    expect(text().split('\r').at(-1)).toContain('1/2');
  });
});

describe('formatDuration', () => {
  it('is short', () => {
    expect([0.4, 59.4, 60, 125, 3720].map(formatDuration)).toEqual(['0s', '59s', '1m00s', '2m05s', '1h02m']);
  });
});

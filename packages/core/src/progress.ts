/** @file Progress of a long task: a bar that is redrawn on a terminal, plain lines now and then in a log. */

/** What progress is written to; `process.stderr` fits. */
export interface ProgressStream {
  write(text: string): unknown;
  isTTY?: boolean;
  columns?: number;
}

export interface ProgressOptions {
  /** What is being done, one or two words. */
  label: string;
  /** Number of items in all; absent: unknown, no bar and no ETA. */
  total?: number;
  /** Items that were done before (a task that goes on): counted in the bar, not in the rate. */
  start?: number;
  /** Name of an item, for the rate: `3.2 rows/s`. Bytes (`MB`) have no plural. */
  unit?: string;
  stream?: ProgressStream;
  /** Least time between two lines of a log, ms. */
  logEvery?: number;
  /** Clock in ms. */
  now?: () => number;
}

export interface Progress {
  /** Sets the number of items done; `note` is shown behind the bar until the next one. */
  set(done: number, note?: string): void;
  /** One more item. */
  tick(note?: string): void;
  /** Writes a line of its own above the bar. */
  print(line: string): void;
  /** Draws the last state and ends the line. Further calls do nothing. */
  end(note?: string): void;
}

const REDRAW_MS = 100;
const LOG_EVERY_MS = 10_000;
const BAR_CELLS = 24;
const CLEAR_LINE = '\r\u001b[2K';

/** Seconds as `7s`, `2m05s`, `1h02m`. */
export function formatDuration(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole}s`;
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor((whole % 3600) / 60)];
  if (hours > 0) return `${hours}h${String(minutes).padStart(2, '0')}m`;
  return `${minutes}m${String(whole % 60).padStart(2, '0')}s`;
}

/** Items per second, or seconds per item when slower than one a second. */
function formatRate(perSecond: number, unit: string): string {
  if (perSecond <= 0) return '';
  const plural = /^[kMG]?B$/.test(unit) ? unit : `${unit}s`;
  if (perSecond >= 1) return `${perSecond >= 100 ? Math.round(perSecond) : perSecond.toFixed(1)} ${plural}/s`;
  return `${(1 / perSecond).toFixed(1)} s/${unit}`;
}

export function createProgress(options: ProgressOptions): Progress {
  const { label, total, unit = 'item', logEvery = LOG_EVERY_MS, now = Date.now } = options;
  const stream: ProgressStream = options.stream ?? process.stderr;
  const start = options.start ?? 0;
  const terminal = stream.isTTY === true;
  const began = now();
  let done = start;
  let note = '';
  let shown = Number.NEGATIVE_INFINITY;
  let ended = false;

  const line = (): string => {
    const elapsed = (now() - began) / 1000;
    const rate = elapsed > 0 ? (done - start) / elapsed : 0;
    const parts = [label];
    if (total === undefined) parts.push(String(done));
    else {
      const share = total > 0 ? Math.min(1, done / total) : 1;
      const cells = Math.round(share * BAR_CELLS);
      if (terminal) parts.push(`${'█'.repeat(cells)}${'░'.repeat(BAR_CELLS - cells)}`);
      parts.push(`${done}/${total}`);
    }
    parts.push(formatRate(rate, unit), formatDuration(elapsed));
    if (total !== undefined && done < total && rate > 0) parts.push(`ETA ${formatDuration((total - done) / rate)}`);
    parts.push(note);
    return parts.filter(Boolean).join('  ');
  };

  const draw = (last: boolean): void => {
    if (!last && now() - shown < (terminal ? REDRAW_MS : logEvery)) return;
    shown = now();
    if (terminal) stream.write(`${CLEAR_LINE}${line().slice(0, (stream.columns || 80) - 1)}${last ? '\n' : ''}`);
    else stream.write(`${line()}\n`);
  };

  const set = (value: number, text = note): void => {
    if (ended) return;
    done = value;
    note = text;
    draw(false);
  };

  return {
    set,
    tick: (text) => set(done + 1, text),
    print: (text) => {
      stream.write(terminal && !ended ? `${CLEAR_LINE}${text}\n` : `${text}\n`);
      if (terminal && !ended) {
        shown = Number.NEGATIVE_INFINITY;
        draw(false);
      }
    },
    end: (text) => {
      if (ended) return;
      note = text ?? note;
      draw(true);
      ended = true;
    },
  };
}

/**
 * @file Draws metrics of runs as an SVG line chart: `npx tsx scripts/plot-metrics.ts <out.svg> <title> <key[,key…]> <label=metrics.jsonl>…`.
 * A key is a metric's name; a thin line shows each step, a thick one its running mean.
 */
import { readFileSync } from 'node:fs';
import { InputError, messageOf, writeFileAtomic } from '@frame-thinker/core';

const WIDTH = 720;
const HEIGHT = 360;
const MARGIN = { left: 56, right: 16, top: 36, bottom: 40 };
const COLOURS = ['#1f6feb', '#d1480f', '#1a7f37', '#8250df', '#9a6700', '#57606a'];

interface Series {
  label: string;
  points: [number, number][];
}

function readSeries(file: string, key: string): [number, number][] {
  return readFileSync(file, 'utf8')
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line) as Record<string, number>)
    .flatMap((line): [number, number][] => (line[key] === undefined ? [] : [[line.step!, line[key]]]));
}

/** Mean of up to `window` points around each. */
function smoothed(points: readonly [number, number][], window: number): [number, number][] {
  return points.map(([x], i) => {
    const near = points.slice(Math.max(0, i - Math.floor(window / 2)), i + Math.ceil(window / 2));
    return [x, near.reduce((sum, [, y]) => sum + y, 0) / near.length];
  });
}

function ticks(low: number, high: number): number[] {
  const raw = (high - low) / 5 || 1;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= raw)!;
  const first = Math.ceil(low / step) * step;
  return Array.from({ length: Math.floor((high - first) / step + 1e-9) + 1 }, (_, i) => first + i * step);
}

export function chart(title: string, series: readonly Series[]): string {
  const all = series.flatMap(({ points }) => points);
  const [xs, ys] = [all.map(([x]) => x), all.map(([, y]) => y)];
  const [x0, x1] = [Math.min(...xs), Math.max(...xs)];
  const [y0, y1] = [Math.min(0, ...ys), Math.max(...ys)];
  const px = (x: number) => MARGIN.left + ((x - x0) / (x1 - x0 || 1)) * (WIDTH - MARGIN.left - MARGIN.right);
  const py = (y: number) =>
    HEIGHT - MARGIN.bottom - ((y - y0) / (y1 - y0 || 1)) * (HEIGHT - MARGIN.top - MARGIN.bottom);
  const path = (points: readonly [number, number][]) =>
    points.map(([x, y], i) => `${i ? 'L' : 'M'}${px(x).toFixed(1)} ${py(y).toFixed(1)}`).join('');
  const number = (v: number) => String(Number(v.toPrecision(4)));
  const text = (s: string) => s.replace(/[&<>]/g, (c) => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;' })[c]!);
  const grid = [
    ...ticks(y0, y1).map(
      (v) =>
        `<path d="M${MARGIN.left} ${py(v).toFixed(1)}H${WIDTH - MARGIN.right}" stroke="#d0d7de"/><text x="${MARGIN.left - 6}" y="${(py(v) + 4).toFixed(1)}" text-anchor="end">${number(v)}</text>`,
    ),
    ...ticks(x0, x1).map(
      (v) =>
        `<text x="${px(v).toFixed(1)}" y="${HEIGHT - MARGIN.bottom + 18}" text-anchor="middle">${number(v)}</text>`,
    ),
  ];
  const lines = series.map(({ label, points }, i) => {
    const colour = COLOURS[i % COLOURS.length]!;
    const x = MARGIN.left + 8 + i * 150;
    return [
      `<path d="${path(points)}" fill="none" stroke="${colour}" stroke-opacity="0.3"/>`,
      `<path d="${path(smoothed(points, Math.max(1, Math.round(points.length / 20))))}" fill="none" stroke="${colour}" stroke-width="2"/>`,
      `<text x="${x}" y="30" fill="${colour}">${text(label)}</text>`,
    ].join('\n');
  });
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${HEIGHT}" font-family="sans-serif" font-size="12" fill="#24292f">
<rect width="${WIDTH}" height="${HEIGHT}" fill="#fff"/>
<text x="${MARGIN.left}" y="16" font-size="14">${text(title)}</text>
${grid.join('\n')}
${lines.join('\n')}
<text x="${WIDTH / 2}" y="${HEIGHT - 6}" text-anchor="middle">step</text>
</svg>
`;
}

function main([out, title, keys, ...files]: string[]): void {
  if (!out || !title || !keys || files.length === 0)
    throw new InputError(
      'usage: npx tsx scripts/plot-metrics.ts <out.svg> <title> <key[,key…]> <label=metrics.jsonl>…',
    );
  const series = files.flatMap((item) => {
    const at = item.indexOf('=');
    const [label, file] = at < 0 ? [item, item] : [item.slice(0, at), item.slice(at + 1)];
    return keys.split(',').map((key) => {
      const points = readSeries(file, key);
      if (points.length === 0) throw new InputError(`${file}: no step has ${key}`);
      return { label: keys.includes(',') ? `${label} ${key}` : label, points };
    });
  });
  writeFileAtomic(out, chart(title, series));
}

if (process.argv[1] === import.meta.filename)
  try {
    main(process.argv.slice(2));
  } catch (error) {
    console.error(messageOf(error));
    process.exitCode = error instanceof InputError || (error as NodeJS.ErrnoException).code === 'ENOENT' ? 2 : 1;
  }

/** @file Draws shares with their intervals as an SVG of horizontal bars. */

export interface Bar {
  label: string;
  /** Shares, 0 to 1. */
  mean: number;
  low: number;
  high: number;
  /** Single values that the mean is made of. */
  marks: readonly number[];
}

const WIDTH = 860;
const LABELS = 430;
const ROW = 24;
const TOP = 40;

const escaped = (s: string): string => s.replace(/[&<>]/g, (c) => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;' })[c]!);

/** Bars to 100 %, a whisker from low to high, a dot a mark. */
export function barFigure(title: string, bars: readonly Bar[]): string {
  const height = TOP + bars.length * ROW + 28;
  const px = (share: number): string => (LABELS + share * (WIDTH - LABELS - 24)).toFixed(1);
  const grid = [0, 0.25, 0.5, 0.75, 1].map(
    (share) =>
      `<path d="M${px(share)} ${TOP - 6}V${height - 24}" stroke="#d0d7de"/><text x="${px(share)}" y="${height - 8}" text-anchor="middle">${100 * share} %</text>`,
  );
  const rows = bars.map(({ label, mean, low, high, marks }, i) => {
    const y = TOP + i * ROW;
    const middle = y + ROW / 2 - 2;
    return [
      `<text x="${LABELS - 8}" y="${middle + 4}" text-anchor="end">${escaped(label)}</text>`,
      `<rect x="${px(0)}" y="${y + 2}" width="${(Number(px(mean)) - LABELS).toFixed(1)}" height="${ROW - 8}" fill="#8fb8ee"/>`,
      `<path d="M${px(low)} ${middle}H${px(high)}" stroke="#24292f"/>`,
      ...marks.map((mark) => `<circle cx="${px(mark)}" cy="${middle}" r="3" fill="#d1480f"/>`),
    ].join('\n');
  });
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" font-family="sans-serif" font-size="12" fill="#24292f">
<rect width="${WIDTH}" height="${height}" fill="#fff"/>
<text x="16" y="20" font-size="14">${escaped(title)}</text>
${grid.join('\n')}
${rows.join('\n')}
</svg>
`;
}

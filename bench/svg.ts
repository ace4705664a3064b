/** Bar charts as SVG: one panel for each figure, one bar for each system, the panels below each other. */
import { round } from './text.ts';

export interface Bar {
  readonly label: string;
  /** A bar that was not measured (NaN) has no length and a dash. */
  readonly value: number;
  /** Stands out from the others. */
  readonly own: boolean;
}

export interface Panel {
  readonly title: string;
  readonly unit: string;
  readonly bars: readonly Bar[];
}

const WIDTH = 760;
const MARGIN = 16;
const LABEL_WIDTH = 160;
const VALUE_WIDTH = 120;
const BAR_HEIGHT = 16;
const BAR_PITCH = 22;
const TITLE_HEIGHT = 30;
const PANEL_GAP = 14;
const COLOURS = { paper: '#ffffff', ink: '#1f2430', faint: '#6b7280', own: '#2563a8', other: '#b3bac5' } as const;

/** The panels as one picture; `caption` is its title and stands below them. */
export function barCharts(panels: readonly Panel[], caption: string): string {
  const heights = panels.map((panel) => TITLE_HEIGHT + panel.bars.length * BAR_PITCH + PANEL_GAP);
  const height = MARGIN + heights.reduce((sum, each) => sum + each, 0) + TITLE_HEIGHT;
  const parts: string[] = [];
  let top = MARGIN;
  for (const [index, panel] of panels.entries()) {
    parts.push(panelParts(panel, top));
    top += heights[index]!;
  }
  parts.push(textAt(MARGIN, top + 12, caption, `font-size="11" fill="${COLOURS.faint}"`));
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}" font-family="sans-serif" font-size="12" fill="${COLOURS.ink}">
<title>${escaped(caption)}</title>
<rect width="${WIDTH}" height="${height}" fill="${COLOURS.paper}"/>
${parts.join('\n')}
</svg>
`;
}

function panelParts({ title, unit, bars }: Panel, top: number): string {
  const longest = Math.max(...bars.map(({ value }) => (Number.isFinite(value) ? value : 0)), Number.MIN_VALUE);
  const room = WIDTH - 2 * MARGIN - LABEL_WIDTH - VALUE_WIDTH;
  const left = MARGIN + LABEL_WIDTH;
  const lines = [textAt(MARGIN, top + 14, `${title} (${unit})`, 'font-weight="bold"')];
  for (const [index, { label, value, own }] of bars.entries()) {
    const y = top + TITLE_HEIGHT - 6 + index * BAR_PITCH;
    const length = Number.isFinite(value) ? (value / longest) * room : 0;
    const baseline = y + BAR_HEIGHT - 4;
    lines.push(
      textAt(left - 8, baseline, label, 'text-anchor="end"'),
      `<rect x="${left}" y="${y}" width="${length.toFixed(1)}" height="${BAR_HEIGHT}" rx="2" fill="${own ? COLOURS.own : COLOURS.other}"/>`,
      textAt(left + length + 6, baseline, round(value), `fill="${COLOURS.faint}"`),
    );
  }
  return lines.join('\n');
}

function textAt(x: number, y: number, content: string, attributes: string): string {
  return `<text x="${x.toFixed(1)}" y="${y.toFixed(1)}" ${attributes}>${escaped(content)}</text>`;
}

function escaped(content: string): string {
  return content.replaceAll('&', '&amp;').replaceAll('<', '&lt;');
}

/** The text form of the log: one entry of pino's JSON as a line that a person reads on a terminal. */

const NAMES: Readonly<Record<number, string>> = {
  10: 'TRACE',
  20: 'DEBUG',
  30: 'INFO',
  40: 'WARN',
  50: 'ERROR',
  60: 'FATAL',
};
/** The colours of levels that stand out (ECMA-48 §8.3.117): yellow from `warn` on, red from `error` on. */
const COLOURS: Readonly<Record<number, number>> = { 40: 33, 50: 31, 60: 31 };
const DIM = 2;
/** Of ECMA-48's control characters all but the newline: what a peer sent must not steer the terminal. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what is looked for
const CONTROLS = /[\u0000-\u0009\u000b-\u001f\u007f-\u009f]/g;

/**
 * `2026-01-31T12:00:00.000Z INFO  tunnel up tunnel=lan`. Lines of a message or a field after the first are indented.
 * @param json one line of pino's, with its newline
 */
export function textEntry(json: string, { colours }: { readonly colours: boolean }): string {
  const { time, level, msg, ...fields } = JSON.parse(json) as {
    readonly time: string;
    readonly level: number;
    readonly msg?: string;
    readonly [field: string]: unknown;
  };
  const paint = (code: number | undefined, text: string): string =>
    colours && code !== undefined ? `\u001b[${code}m${text}\u001b[0m` : text;
  const name = paint(COLOURS[level], (NAMES[level] ?? String(level)).padEnd(5));
  const said = Object.entries(fields).map(([field, value]) => ` ${paint(DIM, `${field}=`)}${shown(value)}`);
  return `${paint(DIM, time)} ${name} ${clean(msg ?? '')}${said.join('')}\n`;
}

/** A word stands as it is; a text with spaces in quotes, unless it has several lines. */
function shown(value: unknown): string {
  if (typeof value !== 'string') return clean(JSON.stringify(value));
  if (value.includes('\n')) return clean(`\n${value}`);
  return clean(/^[^\s"=]+$/.test(value) ? value : JSON.stringify(value));
}

function clean(text: string): string {
  return text.replace(CONTROLS, '?').trimEnd().replaceAll('\n', '\n    ');
}

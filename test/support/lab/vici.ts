/** Reads what `swanctl --raw` prints: `{name {key=value other=[a b] inner {…}}}`. */

export interface RawSection {
  readonly [key: string]: RawValue;
}
export type RawValue = string | readonly string[] | RawSection;

/** @throws Error when the text is not in that form */
export function parseRaw(source: string): RawSection {
  let at = 0;

  function skipBlanks(): void {
    while (source[at] === ' ' || source[at] === '\n') at++;
  }

  function word(ends: string): string {
    const start = at;
    while (at < source.length && !ends.includes(source[at]!)) at++;
    return source.slice(start, at);
  }

  function items(): string[] {
    at++; // '['
    const end = source.indexOf(']', at);
    if (end < 0) throw new Error(`a list without end in ${source}`);
    const inner = source.slice(at, end).trim();
    at = end + 1;
    return inner === '' ? [] : inner.split(' ');
  }

  /**
   * A value may hold blanks (a distinguished name does, with types in capitals): it ends where the next ` key=`,
   * ` name {` or the section's end stands.
   */
  function value(): string {
    const rest = source.slice(at);
    const end = /(?= [a-z][a-z0-9-]*=)|(?= [\w.-]+ \{)|(?=\})/.exec(rest);
    if (end === null) throw new Error(`a value without end in ${source}`);
    at += end.index;
    return rest.slice(0, end.index);
  }

  function body(): RawSection {
    if (source[at] !== '{') throw new Error(`'{' was expected at ${at} of ${source}`);
    at++;
    const result: Record<string, RawValue> = {};
    for (;;) {
      skipBlanks();
      if (at >= source.length) throw new Error(`a section without end in ${source}`);
      if (source[at] === '}') {
        at++;
        return result;
      }
      const key = word('={ }');
      skipBlanks();
      if (source[at] === '{') result[key] = body();
      else {
        at++; // '='
        result[key] = source[at] === '[' ? items() : value();
      }
    }
  }

  return body();
}

function member(value: RawValue, key: string): RawValue | undefined {
  return typeof value === 'string' || Array.isArray(value) ? undefined : (value as RawSection)[key];
}

/** A key's text; empty when it is not there. */
export function text(value: RawValue, key: string): string {
  const found = member(value, key);
  return typeof found === 'string' ? found : '';
}

export function list(value: RawValue, key: string): readonly string[] {
  const found = member(value, key);
  return Array.isArray(found) ? found : [];
}

export function section(value: RawValue, key: string): RawSection {
  const found = member(value, key);
  return found === undefined || typeof found === 'string' || Array.isArray(found) ? {} : (found as RawSection);
}

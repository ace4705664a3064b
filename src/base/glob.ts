/** Names by the patterns of a shell: `*`, `?`, and sets such as `[a-f]` or `[!0-9]`. */

type Token = { readonly kind: 'star' } | { readonly kind: 'one'; fits(char: string): boolean };

const STAR: Token = { kind: 'star' };

export function isGlob(text: string): boolean {
  return /[*?[]/.test(text);
}

/** Whether a text fits the whole pattern. Its cost grows with the product of both lengths, whatever the pattern. */
export function globMatcher(pattern: string): (text: string) => boolean {
  const tokens = tokensOf([...pattern]);
  return (text) => fits(tokens, [...text]);
}

function fits(tokens: readonly Token[], chars: readonly string[]): boolean {
  let token = 0;
  let at = 0;
  /** Behind the last star, and how far it reaches: what does not fit later makes it reach further. */
  let retry: { readonly token: number; at: number } | undefined;
  while (at < chars.length) {
    const wanted = tokens[token];
    if (wanted?.kind === 'star') {
      retry = { token: ++token, at };
    } else if (wanted?.kind === 'one' && wanted.fits(chars[at]!)) {
      token++;
      at++;
    } else if (retry !== undefined) {
      token = retry.token;
      at = ++retry.at;
    } else return false;
  }
  while (tokens[token]?.kind === 'star') token++;
  return token === tokens.length;
}

function tokensOf(chars: readonly string[]): Token[] {
  const tokens: Token[] = [];
  for (let at = 0; at < chars.length; at++) {
    const char = chars[at]!;
    // A bracket without its end stands for itself.
    const end = char === '[' ? chars.indexOf(']', at + (chars[at + 1] === '!' ? 3 : 2)) : -1;
    if (char === '*') tokens.push(STAR);
    else if (char === '?') tokens.push({ kind: 'one', fits: () => true });
    else if (end > 0) {
      tokens.push(setOf(chars.slice(at + 1, end)));
      at = end;
    } else tokens.push({ kind: 'one', fits: (other) => other === char });
  }
  return tokens;
}

function setOf(chars: readonly string[]): Token {
  const excludes = chars[0] === '!';
  const ranges: (readonly [string, string])[] = [];
  for (let at = excludes ? 1 : 0; at < chars.length; at++) {
    const isRange = chars[at + 1] === '-' && at + 2 < chars.length;
    ranges.push([chars[at]!, chars[isRange ? at + 2 : at]!]);
    if (isRange) at += 2;
  }
  return { kind: 'one', fits: (char) => ranges.some(([first, last]) => first <= char && char <= last) !== excludes };
}

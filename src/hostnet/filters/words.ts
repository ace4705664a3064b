/** The words of what nft(8) prints: quoted text is one word, and so are brackets with what stands in them. */

/** `ip saddr { 10.0.0.1, 10.0.0.2 } log prefix "a b" drop` → seven words. */
export function wordsOf(text: string): string[] {
  return text.match(/"[^"]*"|\{(?:"[^"]*"|[^"}])*\}|[^\s"{]+/g) ?? [];
}

/** Without its quotes. */
export function unquoted(word: string): string {
  return word.startsWith('"') && word.endsWith('"') && word.length > 1 ? word.slice(1, -1) : word;
}

/** What stands between brackets, at its commas. */
export function elementsOf(bracketed: string): string[] {
  const inner = bracketed.replace(/^\{/, '').replace(/\}$/, '');
  const elements = inner.match(/(?:"[^"]*"|[^",])+/g) ?? [];
  return elements.map((element) => element.trim()).filter((element) => element !== '');
}

/** How many brackets it opens and does not close. */
export function openedIn(text: string): number {
  const bare = text.replace(/"[^"]*"/g, '');
  return bare.split('{').length - bare.split('}').length;
}

/** Which of the known names a person may have meant. */

/** Edits after which a name of up to `SHORT` characters, and a longer one, is another name. */
const MAX_DISTANCE = { short: 1, long: 2 } as const;
const SHORT = 6;
/** Longer words are not compared: they are no names. */
const MAX_LENGTH = 32;

/**
 * The name that is nearly what was found: equal without regard to case and to what joins its parts, or else the one that
 * takes the fewest edits, of which a short name allows one, a longer one two. `undefined` when there is none.
 */
export function nearest(found: string, names: readonly string[]): string | undefined {
  const wanted = bare(found);
  const equal = names.find((name) => bare(name) === wanted);
  if (equal !== undefined || wanted.length > MAX_LENGTH) return equal;
  let best: string | undefined;
  let least = Number.POSITIVE_INFINITY;
  for (const name of names) {
    // One edit makes many short words of others.
    if (name.length <= 2) continue;
    const distance = editDistance(wanted, bare(name));
    const most = name.length > SHORT ? MAX_DISTANCE.long : MAX_DISTANCE.short;
    if (distance <= most && distance < least) [best, least] = [name, distance];
  }
  return best;
}

/** ` (did you mean 'policy'?)` when one of the names is nearly what was found, else nothing. */
export function suggestion(found: string, names: readonly string[]): string {
  const near = nearest(found, names);
  return near === undefined ? '' : ` (did you mean '${near}'?)`;
}

function bare(name: string): string {
  return name.toLowerCase().replace(/[-_. ]/g, '');
}

/** Insertions, deletions, changes, and neighbours that are swapped (optimal string alignment). */
function editDistance(a: string, b: string): number {
  let before: number[] = [];
  let row = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const change = row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1);
      const swapped = i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1];
      next.push(Math.min(change, row[j]! + 1, next[j - 1]! + 1, swapped ? before[j - 2]! + 1 : change));
    }
    before = row;
    row = next;
  }
  return row[b.length]!;
}

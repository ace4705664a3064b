/**
 * The ids of parts: a letter for the kind, and digits that follow from the key, so that what a crash left behind is found again.
 * Parts of tunnels in VRFs have a letter of their own, as their chains must not be asked about packets of the default domain.
 */
import { createHash } from 'node:crypto';
import type { FencePart } from './fence.ts';

const LETTERS = { tunnel: 't', bridge: 'b', untranslated: 'u' } as const satisfies Record<FencePart['kind'], string>;
const VRF_LETTER = 'v';

/** Matches an id, without the `_` that follows it. */
export const ID: string = `[${[...Object.values(LETTERS), VRF_LETTER].join('')}][0-9a-f]{12}`;

export function idOf(part: FencePart, key: string): string {
  return named(part.kind === 'tunnel' && part.vrf !== undefined ? VRF_LETTER : LETTERS[part.kind], key);
}

/** Those that a part of the kind may have. */
export function idsOf(kind: FencePart['kind'], key: string): string[] {
  const letters = kind === 'tunnel' ? [LETTERS.tunnel, VRF_LETTER] : [LETTERS[kind]];
  return letters.map((letter) => named(letter, key));
}

function named(letter: string, key: string): string {
  return `${letter}${createHash('sha256').update(key).digest('hex').slice(0, 12)}`;
}

/** Whether it is of a tunnel in a VRF. */
export function isInVrf(id: string): boolean {
  return id.startsWith(VRF_LETTER);
}

export function kindOf(id: string): FencePart['kind'] {
  if (isInVrf(id) || id.startsWith(LETTERS.tunnel)) return 'tunnel';
  return id.startsWith(LETTERS.bridge) ? 'bridge' : 'untranslated';
}

/** By what tunnels are selected and sorted: the words that daemon and command share. */

/** The states of `list`. */
export const STATES = ['inactive', 'waiting to retry', 'waiting', 'connecting', 'partial', 'up'] as const;

/**
 * `name`: by name. `state`: what is not up first, as in STATES. `since`: what changed its state last comes first. `traffic`: the
 * most bytes of its CHILD SAs first, both ways.
 */
export const SORT_KEYS = ['name', 'state', 'since', 'traffic'] as const;

export type SortKey = (typeof SORT_KEYS)[number];

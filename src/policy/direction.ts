/** Seen from here: `in` is from the peer. */
export type Direction = 'in' | 'out';

/**
 * Why a packet was dropped: stable numeric codes for the data path, names for status, and counters by reason.
 */

/** `none` means that nothing was dropped, so a reason is also what the per-packet functions return. */
export const DropReason = {
  none: 0,
  /** Outbound: no entry of the policy database matches (RFC 4301 §5.1: the default is to discard). */
  noPolicy: 1,
  /** Outbound: the entry that matches says discard. */
  discarded: 2,
  /** Outbound: the entry demands protection and has no usable SA. */
  noSa: 3,
  /** Outbound: all sequence numbers of the SA are used up (RFC 4303 §3.3.3). */
  sequenceExhausted: 4,
  /** The SA is past its hard limit of time, bytes or packets (RFC 4301 §4.4.2.1). */
  lifetimeExpired: 5,
  /** Inbound: shorter than an empty packet of this SA, or than an SPI and a sequence number. */
  tooShort: 6,
  /** Inbound: no SA has this SPI; SPIs 0 to 255 never have one. */
  unknownSpi: 7,
  /** Inbound: this sequence number was received before, or is 0. */
  replay: 8,
  /** Inbound: left of the anti-replay window. */
  tooOld: 9,
  /** Inbound: the ICV does not fit. */
  badIcv: 10,
  /** Inbound: pad length past the start, or padding other than 1, 2, 3 … (RFC 4303 §2.4). */
  badPadding: 11,
  /** Inbound: the next header is none that the SA carries. */
  badNextHeader: 12,
  /** Inbound: the packet inside does not fit the selectors of the SA that it came through (RFC 4301 §5.2). */
  selectorMismatch: 13,
  /** The plain packet is no IPv4 or IPv6 packet, or is cut short. */
  badInnerPacket: 14,
  /** Inbound: a dummy packet (RFC 4303 §2.6); authentic, and meant to be dropped. */
  dummy: 15,
  /** Inbound: the ciphertext is no multiple of the cipher's block. */
  badLength: 16,
  /** Outbound: the slot has no room for ESP header, padding and ICV. */
  noRoom: 17,
  /** A fragment whose ports cannot be told: its first fragment is not known (RFC 4301 §7). */
  fragment: 18,
  /** Outbound: does not fit the path, and must not be fragmented; its sender was told, or may not be. */
  tooBig: 19,
  /** Inbound: congestion was marked outside, and the transport inside knows of it by loss only (RFC 6040 §4.2). */
  congestion: 20,
  /** Outbound: transport mode protects whole packets, this is a fragment (RFC 4303 §3.3.4). */
  transportFragment: 21,
  /** Outbound: IPv4 options, or IPv6 headers that routers read, do not get through in transport mode. */
  transportHeaders: 22,
  /** Outbound: the peer has narrowed away what the packet belongs to (RFC 7296 §2.9). */
  narrowed: 23,
  /** Inbound: fits the SA, but the entry that decides it demands something else than this SA. */
  policyMismatch: 24,
} as const;

export type DropReason = (typeof DropReason)[keyof typeof DropReason];

/** Names for status and metrics, indexed by reason. */
export const dropReasonNames: readonly string[] = [
  'none',
  'no-policy',
  'discarded-by-policy',
  'no-sa',
  'sequence-exhausted',
  'lifetime-expired',
  'too-short',
  'unknown-spi',
  'replay',
  'too-old',
  'bad-icv',
  'bad-padding',
  'bad-next-header',
  'selector-mismatch',
  'bad-inner-packet',
  'dummy',
  'bad-length',
  'no-room',
  'fragment',
  'too-big',
  'congestion',
  'fragment-in-transport-mode',
  'headers-in-transport-mode',
  'narrowed-by-peer',
  'policy-mismatch',
];

/** One counter for each reason. Typed, so that it may lie in memory shared with another thread. */
export type DropCounters = Float64Array;

export function newDropCounters(): DropCounters {
  return new Float64Array(dropReasonNames.length);
}

/** The reasons that occurred, by name: for status. */
export function namedDrops(counters: DropCounters): Record<string, number> {
  const named: Record<string, number> = {};
  for (const [reason, name] of dropReasonNames.entries()) {
    const count = counters[reason] ?? 0;
    if (count > 0) named[name] = count;
  }
  return named;
}

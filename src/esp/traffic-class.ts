/**
 * DSCP and ECN between the two IP headers of a packet in tunnel mode (RFC 4301 §5.1.2, RFC 6040).
 *
 * Outbound, ECN is copied (normal mode, RFC 6040 §4.1: every IKEv2 peer restores it), and DSCP too unless it is fixed.
 * Inbound, congestion that routers marked outside is passed on inside; the outer DSCP is dropped.
 *
 * Hot path: no allocation, no exception.
 */
import { updatedChecksum } from '../base/checksum.ts';

/** The two lower bits of the byte (RFC 3168 §5). */
export const Ecn = { notEct: 0, ect1: 1, ect0: 2, ce: 3 } as const;
export const ECN_MASK = 3;

/** In place of a DSCP: that of the packet inside. */
export const COPY_DSCP = -1;
/** Six bits (RFC 2474 §3). */
export const MAX_DSCP = 63;

/** The byte of the outer header for a packet whose own is `inner`. */
export function outerTrafficClass(inner: number, dscp: number): number {
  return dscp === COPY_DSCP ? inner : (dscp << 2) | (inner & ECN_MASK);
}

export function isDscp(value: number): boolean {
  return Number.isInteger(value) && value >= 0 && value <= MAX_DSCP;
}

/** What `combinedEcn` adds to the two bits. */
export const ECN_DROP = 0x4;
/** No tunnel makes this combination: something on the path is broken or forged. */
export const ECN_UNEXPECTED = 0x8;

/** RFC 6040 §4.2, figure 4. Rows: the packet's own; columns: the outer header's; both Not-ECT, ECT(1), ECT(0), CE. */
const COMBINED: Uint8Array = Uint8Array.of(
  ...[Ecn.notEct, Ecn.notEct | ECN_UNEXPECTED, Ecn.notEct | ECN_UNEXPECTED, ECN_DROP | ECN_UNEXPECTED],
  ...[Ecn.ect1, Ecn.ect1, Ecn.ect1 | ECN_UNEXPECTED, Ecn.ce],
  ...[Ecn.ect0, Ecn.ect1, Ecn.ect0, Ecn.ce],
  ...[Ecn.ce, Ecn.ce | ECN_UNEXPECTED, Ecn.ce, Ecn.ce],
);

/** ECN that the packet inside goes on with, perhaps `| ECN_UNEXPECTED`; or `ECN_DROP | ECN_UNEXPECTED`. */
export function combinedEcn(inner: number, outer: number): number {
  return COMBINED[((inner & ECN_MASK) << 2) | (outer & ECN_MASK)]!;
}

/** Sets ECN in the IP header at `at`, which was read as whole, and corrects its checksum (IPv4). */
export function writeEcn(buffer: Uint8Array, at: number, ecn: number): void {
  const first = buffer[at]!;
  const second = buffer[at + 1]!;
  if (first >>> 4 === 6) {
    buffer[at + 1] = (second & ~(ECN_MASK << 4)) | (ecn << 4);
    return;
  }
  const updated = (second & ~ECN_MASK) | ecn;
  const checksum = updatedChecksum(
    (buffer[at + 10]! << 8) | buffer[at + 11]!,
    (first << 8) | second,
    (first << 8) | updated,
  );
  buffer[at + 1] = updated;
  buffer[at + 10] = checksum >>> 8;
  buffer[at + 11] = checksum;
}

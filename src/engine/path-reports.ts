/**
 * What routers report about packets of ours that were too large for a link (RFC 1191 §4, RFC 8201 §4), held against what
 * was sent. Anyone can send such a report; the part of the packet that it quotes shows whether its sender has seen one.
 */
import { readU32 } from '../base/bytes.ts';
import { MIN_MTU, MIN_REPORTED_MTU } from '../base/mtu.ts';
import type { PathReport } from '../base/path-report.ts';
import type { Path } from '../ike/events.ts';
import type { EngineChild } from './tunnel.ts';

/** Packets that an SA may have sent since one that is reported: more than a second of any line that we fill. */
const RECENT_PACKETS = 0x1_0000;
/** Where the SPI ends, and the sequence number (RFC 4303 §2). */
const SPI_END = 4;
const SEQUENCE_END = 8;

/** A report that is believed: what the path takes, from now on. */
export interface BelievedReport {
  readonly path: Path;
  readonly mtu: number;
}

/** @param children those whose peer is at the address that the packet was sent to */
export function judgeReport(report: PathReport, children: Iterable<EngineChild>): BelievedReport | undefined {
  for (const child of children) {
    const { path } = child;
    if (path.remote.port !== report.remote.port || !isOf(report.quote, child)) continue;
    return { path, mtu: lowest(report) };
  }
  return undefined;
}

/** Whether the quote is of a packet that the SA has sent not long ago, as far as it goes. */
function isOf(quote: Uint8Array, { summary, sent }: EngineChild): boolean {
  if (quote.length < SPI_END) return true;
  if (readU32(quote, 0) !== summary.spiOut) return false;
  if (quote.length < SEQUENCE_END) return true;
  const sequence = readU32(quote, SPI_END);
  const high = sent.sequence[0]!;
  const low = sent.sequence[1]!;
  const behind = (low - sequence) >>> 0;
  // None has gone before the first: until the numbers have been round once, there is nothing behind that.
  return behind < (high === 0 ? Math.min(RECENT_PACKETS, low) : RECENT_PACKETS);
}

/**
 * A router that does not say what it takes (RFC 791 ones do not), and a quote that ends before the SPI, which anyone can
 * make up, are believed down to what nearly every path takes.
 */
function lowest({ mtu, quote, remote }: PathReport): number {
  const least = quote.length < SPI_END || mtu === 0 ? MIN_REPORTED_MTU : MIN_MTU[remote.address.family];
  return Math.max(mtu, least);
}

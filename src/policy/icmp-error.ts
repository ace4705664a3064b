/**
 * ICMP error messages, and the packets that they are about (RFC 792, RFC 4443 §2.1). One about a protected flow
 * may match no selector of the flow's SA: then the quoted flow decides which SA carries it (RFC 4301 §6.2).
 */
import { DESTINATION, type Flow, FlowError, Fragment, readQuotedFlow, SOURCE } from './flow.ts';
import { Protocol } from './protocols.ts';

/** Unreachable, source quench, redirect, time exceeded, parameter problem. */
const ICMP_ERRORS: readonly number[] = [3, 4, 5, 11, 12];
/** From here on ICMPv6 informs. */
const ICMPV6_INFORMATIONAL = 128;
/** Between the type and the packet that the message is about. */
const ICMP_HEADER = 8;

/** Whether the packet is an ICMP error message: about another packet. */
export function isIcmpError({ family, protocol, fragment, srcPort }: Flow): boolean {
  if (fragment === Fragment.later) return false;
  const type = srcPort >> 8;
  if (family === 4) return protocol === Protocol.icmp && ICMP_ERRORS.includes(type);
  return protocol === Protocol.icmpv6 && type < ICMPV6_INFORMATIONAL;
}

/**
 * Reads the header of the packet that an ICMP error at `at` is about, reversed: source and destination are
 * swapped, and the ports where they can be seen. So it has the direction of the error itself, and is decided as the
 * traffic that the error is about (RFC 4301 §6.2).
 * @param error the flow of the message
 * @param turned filled
 * @returns false when it is no error, cannot be read, or is for another host than the one whose packet it is about
 */
export function readTurnedTrigger(buffer: Uint8Array, at: number, error: Flow, turned: Flow): boolean {
  if (!isIcmpError(error)) return false;
  const start = error.headerLength + ICMP_HEADER;
  if (readQuotedFlow(buffer, at + start, error.totalLength - start, turned) !== FlowError.none) return false;
  if (turned.family !== error.family) return false;
  const { words, srcPort } = turned;
  for (let i = 0; i < 4; i++) {
    const source = words[SOURCE + i]!;
    words[SOURCE + i] = words[DESTINATION + i]!;
    words[DESTINATION + i] = source;
  }
  turned.srcPort = turned.dstPort;
  turned.dstPort = srcPort;
  // The error must go to the sender of the packet that it is about. IPv4 uses the first word alone.
  const length = error.family === 4 ? 1 : 4;
  for (let i = 0; i < length; i++) if (words[DESTINATION + i] !== error.words[DESTINATION + i]) return false;
  return true;
}

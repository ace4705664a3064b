/**
 * TCP MSS clamping: the option of a SYN is lowered to what fits the tunnel, so that both ends of a connection through
 * it send segments that need no fragmentation, even where ICMP does not get through (RFC 4459 §3.2, RFC 9293 §3.7.1).
 *
 * Hot path: no allocation, no exception. What is malformed is left as it is, for its receiver to judge.
 */
import { updatedChecksum } from '../base/checksum.ts';
import { type Flow, Fragment } from '../policy/flow.ts';
import { Protocol } from '../policy/protocols.ts';

/** IP and TCP headers without options: what the MSS does not count (RFC 9293 §3.7.1, RFC 8200 §8.3). */
const HEADERS_V4 = 20 + 20;
const HEADERS_V6 = 40 + 20;

const TCP_HEADER = 20;
const TCP_OFFSET = 12;
const TCP_FLAGS = 13;
const TCP_CHECKSUM = 16;
const FLAG_SYN = 0x02;

const OPTION_END = 0;
const OPTION_NOP = 1;
const OPTION_MSS = 2;
const MSS_LENGTH = 4;

/**
 * Lowers the MSS of the TCP SYN at `at`, whose flow was read, to packets of `mtu` bytes. Anything else is left alone:
 * other packets, fragments, an MSS that is lower, and a SYN without one, whose sender takes very little (536 or 1220).
 */
export function clampMss(buffer: Uint8Array, at: number, flow: Flow, mtu: number): void {
  if (flow.protocol === Protocol.tcp && flow.fragment === Fragment.none) clampTcp(buffer, at, flow, mtu);
}

/** Apart from the question whether it is TCP, which is asked of every packet. */
function clampTcp(buffer: Uint8Array, at: number, flow: Flow, mtu: number): void {
  const tcp = at + flow.headerLength;
  const end = at + flow.totalLength;
  if (tcp + TCP_HEADER > end || (buffer[tcp + TCP_FLAGS]! & FLAG_SYN) === 0) return;
  const optionsEnd = tcp + (buffer[tcp + TCP_OFFSET]! >>> 4) * 4;
  if (optionsEnd > end) return;
  const most = mtu - (flow.family === 4 ? HEADERS_V4 : HEADERS_V6);
  let option = tcp + TCP_HEADER;
  while (option < optionsEnd) {
    const kind = buffer[option]!;
    if (kind === OPTION_END) return;
    if (kind === OPTION_NOP) {
      option++;
      continue;
    }
    const length = option + 1 < optionsEnd ? buffer[option + 1]! : 0;
    if (length < 2 || option + length > optionsEnd) return;
    if (kind === OPTION_MSS && length === MSS_LENGTH) lower(buffer, tcp, option + 2, most);
    option += length;
  }
}

function lower(buffer: Uint8Array, tcp: number, at: number, most: number): void {
  const before = (buffer[at]! << 8) | buffer[at + 1]!;
  if (before <= most) return;
  buffer[at] = most >>> 8;
  buffer[at + 1] = most;
  const field = tcp + TCP_CHECKSUM;
  const checksum = (buffer[field]! << 8) | buffer[field + 1]!;
  // Behind an odd number of one-byte options its bytes belong to two words: as if they had changed places (RFC 1071 §2).
  const odd = ((at - tcp) & 1) !== 0;
  const updated = updatedChecksum(checksum, odd ? swap(before) : before, odd ? swap(most) : most);
  buffer[field] = updated >>> 8;
  buffer[field + 1] = updated;
}

function swap(word: number): number {
  return ((word & 0xff) << 8) | (word >>> 8);
}

/**
 * The checksum of IP, ICMP, TCP and UDP, for headers and short messages: sums of 16-bit words in ones' complement
 * (RFC 1071). A checksum field holds the complement of such a sum. What sums many bytes is in `src/tun/offload`.
 */

/** Carries the upper half of a value below 2^32 around into 16 bits. */
export function foldSum(sum: number): number {
  const once = (sum & 0xffff) + (sum >>> 16);
  return (once & 0xffff) + (once >>> 16);
}

/** `initial` plus the sum of `length` bytes, at most 2^16, an odd last one followed by a zero. */
export function sumBytes(buffer: Uint8Array, at: number, length: number, initial = 0): number {
  let sum = initial;
  const end = at + length;
  for (let i = at; i + 1 < end; i += 2) sum += (buffer[i]! << 8) | buffer[i + 1]!;
  if ((length & 1) !== 0) sum += buffer[end - 1]! << 8;
  return foldSum(sum);
}

/** What a checksum becomes when one of the words that it covers changes (RFC 1624 §3, equation 3). */
export function updatedChecksum(checksum: number, before: number, after: number): number {
  return ~foldSum((~checksum & 0xffff) + (~before & 0xffff) + after) & 0xffff;
}

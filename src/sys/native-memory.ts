/** Memory that native code reads and writes: the addresses of buffers, and aligned memory of its own. */
import { secretBytes } from '../base/secret-bytes.ts';
import { koffi } from './ffi.ts';

// BOUNDED: by the buffers that are alive.
const addresses = new WeakMap<Uint8Array, number>();
/** The last two buffers that were asked for: on the packet path one of both is asked for next. */
let lastBuffer: Uint8Array | undefined;
let lastAddress = 0;
let formerBuffer: Uint8Array | undefined;
let formerAddress = 0;

/**
 * Where a buffer's memory is: the same for the buffer's life, because V8 does not move memory whose address it has given
 * out. Keep a reference to the buffer as long as the address is used. A buffer that was detached has length 0: check the
 * length first, and a stale address is never used.
 */
export function addressOf(buffer: Uint8Array): number {
  if (buffer === lastBuffer) return lastAddress;
  let address = buffer === formerBuffer ? formerAddress : addresses.get(buffer);
  if (address === undefined) {
    address = Number(koffi().address(buffer));
    addresses.set(buffer, address);
  }
  formerBuffer = lastBuffer;
  formerAddress = lastAddress;
  lastBuffer = buffer;
  lastAddress = address;
  return address;
}

/** Memory for native code, with its address. It lives as long as `bytes` is referred to, so hold `bytes`, not `address` alone. */
export interface NativeMemory {
  readonly bytes: Uint8Array;
  readonly address: number;
}

/** Zeroed memory whose address is a multiple of `alignment`. */
export function alignedMemory(length: number, alignment = 64): NativeMemory {
  const room = secretBytes(length + alignment);
  const address = Number(koffi().address(room));
  const skipped = (alignment - (address % alignment)) % alignment;
  return { bytes: room.subarray(skipped, skipped + length), address: address + skipped };
}

/**
 * Returns `addressOf` for one small array that goes into a cipher with every packet: all packets of an SA share their nonce
 * and their associated data, so they do not push a packet's buffer out of the last two.
 */
export function addressMemo(): (bytes: Uint8Array) => number {
  let known: Uint8Array | undefined;
  let address = 0;
  return (bytes) => {
    if (bytes !== known) {
      address = Number(koffi().address(bytes));
      known = bytes;
    }
    return address;
  };
}

/**
 * What the providers that call native code share: koffi, loaded at first use so that a program which imports the
 * library needs no FFI, and the addresses of buffers.
 *
 * Addresses are passed as numbers: koffi then has nothing to wrap or unwrap, which is a third of the cost of a call.
 */
import { createRequire } from 'node:module';
import { endianness } from 'node:os';
import { secretBytes } from '../../base/secret-bytes.ts';
import { messageOf } from '../../base/text.ts';
import { ProviderUnavailableError } from '../provider.ts';

type Koffi = typeof import('koffi');

export interface NativeLibrary {
  /** Binds a function by its C prototype. @throws ProviderUnavailableError when the library has no such function */
  func<Call>(prototype: string): Call;
}

/** Structures are laid out, and 64-bit arguments passed, as these have it. */
const KNOWN_PROCESSORS: readonly string[] = ['x64', 'arm64', 'riscv64'];

let loaded: Koffi | undefined;

function koffi(): Koffi {
  if (loaded !== undefined) return loaded;
  const { platform, arch } = process;
  if (platform !== 'linux' || !KNOWN_PROCESSORS.includes(arch) || endianness() !== 'LE') {
    throw new ProviderUnavailableError(
      `native calls are made on 64-bit little-endian Linux only, not ${platform}-${arch}`,
    );
  }
  try {
    loaded = createRequire(import.meta.url)('koffi') as Koffi;
  } catch (error) {
    throw new ProviderUnavailableError(`the package koffi cannot be loaded: ${messageOf(error)}`);
  }
  return loaded;
}

/**
 * Opens a shared library by its name, or with `null` the running program itself with what it is linked to.
 * @throws ProviderUnavailableError
 */
export function openLibrary(file: string | null): NativeLibrary {
  const ffi = koffi();
  const name = file ?? 'this program';
  const library = attempt(name, () => ffi.load(file));
  return { func: <Call>(prototype: string) => attempt(name, () => library.func(prototype)) as Call };
}

function attempt<T>(library: string, call: () => T): T {
  try {
    return call();
  } catch (error) {
    throw new ProviderUnavailableError(`${library}: ${messageOf(error)}`);
  }
}

// BOUNDED: by the buffers that are alive.
const addresses = new WeakMap<Uint8Array, number>();
/** The one that was asked for last, which on the packet path is the one that is asked for next. */
let lastBuffer: Uint8Array | undefined;
let lastAddress = 0;

/**
 * Where a buffer's memory is: the same for all its life, because V8 does not move memory whose address it has given
 * out. A buffer that was detached has length 0, so that whoever checks lengths first never uses a stale address.
 */
export function addressOf(buffer: Uint8Array): number {
  if (buffer === lastBuffer) return lastAddress;
  let address = addresses.get(buffer);
  if (address === undefined) {
    address = Number(koffi().address(buffer));
    addresses.set(buffer, address);
  }
  lastBuffer = buffer;
  lastAddress = address;
  return address;
}

/**
 * Memory for native code, with its address. It is there as long as `bytes` is referred to: who uses the address must
 * hold on to it, best by a `wipe` that overwrites it.
 */
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
 * The address of a small array that a cipher is given with every packet: nonces and associated data are the same
 * arrays for all packets of an SA.
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

/**
 * The one place that loads koffi, through which all native code is called: the C library, OpenSSL, libipsec-mb.
 *
 * koffi is loaded at the first call, so a program that embeds sectunnel with memory devices needs neither Linux nor koffi's
 * binary. Pointers are passed as numbers (`native-memory.ts`): koffi then has nothing to wrap or unwrap, which is a third
 * of the cost of a call.
 */
import { createRequire } from 'node:module';
import { endianness } from 'node:os';
import { messageOf } from '../base/text.ts';

type Koffi = typeof import('koffi');

/** Native code cannot be called here; the message says what is missing or what was found instead. */
export class NativeUnavailableError extends Error {
  override readonly name = 'NativeUnavailableError';
}

export interface NativeLibrary {
  /** Binds a function by its C prototype. @throws NativeUnavailableError when the library has no such function */
  func<Call>(prototype: string): Call;
}

/** Callers lay out structures, and pass 64-bit arguments, as these processors do. */
const KNOWN_PROCESSORS: readonly string[] = ['x64', 'arm64', 'riscv64'];

let loaded: Koffi | undefined;

/** For the files of this folder; others open a library. @throws NativeUnavailableError */
export function koffi(): Koffi {
  loaded ??= loadKoffi();
  return loaded;
}

function loadKoffi(): Koffi {
  const { platform, arch } = process;
  if (platform !== 'linux' || !KNOWN_PROCESSORS.includes(arch) || endianness() !== 'LE') {
    throw new NativeUnavailableError(
      `TUN devices, routes and native cryptography need Linux on ${KNOWN_PROCESSORS.join(', ')}, this is ` +
        `${platform}-${arch}: use a memory device, or run sectunnel on such a machine`,
    );
  }
  try {
    return createRequire(import.meta.url)('koffi') as Koffi;
  } catch (error) {
    throw new NativeUnavailableError(
      `the package koffi, which makes system calls, cannot be loaded on ${platform}-${arch}: ${messageOf(error)}. ` +
        "Install sectunnel's optional dependencies (npm install without --omit=optional) on this machine",
    );
  }
}

/**
 * Opens a shared library by its name, or with `null` the running program itself with the libraries that it is linked to.
 * @throws NativeUnavailableError
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
    throw new NativeUnavailableError(`${library}: ${messageOf(error)}`);
  }
}

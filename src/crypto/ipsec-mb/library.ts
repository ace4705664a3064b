/**
 * libipsec-mb (Debian's libipsec-mb1 and libipsec-mb2), found and checked at run time. It exports AES-GCM for each level of x86-64
 * processors; the caller chooses one that the processor has, since another ends the process with SIGILL.
 */
import { readFileSync } from 'node:fs';
import { type NativeLibrary, NativeUnavailableError, openLibrary } from '../../sys/ffi.ts';
import { ProviderUnavailableError } from '../provider.ts';

/** A library whose functions and structures are known. */
export interface KnownLibrary {
  readonly soname: string;
  /** As `imb_get_version` has it, without the patch level: sizes of structures are known for these alone. */
  readonly version: readonly [major: number, minor: number];
  /** What it is written for, from the quickest to the slowest. */
  readonly levels: readonly Level[];
}

/** The newest first. Of 2.0 `vaes_avx2` is left out: no processor was at hand to test it on. */
export const LIBRARIES: readonly KnownLibrary[] = [
  { soname: 'libIPSec_MB.so.2', version: [2, 0], levels: ['vaes_avx512', 'avx512', 'avx_gen4', 'sse'] },
  { soname: 'libIPSec_MB.so.1', version: [1, 3], levels: ['vaes_avx512', 'avx512', 'avx_gen4', 'avx_gen2', 'sse'] },
];

/** AES-GCM with one size of key. All pointers are addresses; `keyData` and `context` are aligned to 64 bytes. */
export interface GcmFunctions {
  /** Expands a key into `keyData`. */
  expand(key: number, keyData: number): void;
  readonly encrypt: GcmCall;
  /** `tag` is where the tag goes that was computed: the caller compares. */
  readonly decrypt: GcmCall;
}

type GcmCall = (
  keyData: number,
  context: number,
  out: number,
  input: number,
  length: number,
  iv: number,
  aad: number,
  aadLength: number,
  tag: number,
  tagLength: number,
) => void;

export interface IpsecMb {
  /** The level in use, as the library names it. */
  readonly level: string;
  /** By the key's length in bytes. */
  readonly gcm: ReadonlyMap<number, GcmFunctions>;
}

/** Vector extensions that the library's functions are written for. */
type Level = 'vaes_avx512' | 'avx512' | 'avx_gen4' | 'avx_gen2' | 'sse';

const sse = ['cmov', 'sse4_1', 'sse4_2', 'aes', 'pclmulqdq'] as const;
const avx = [...sse, 'avx'] as const;
const avx2 = [...avx, 'avx2', 'bmi2'] as const;
const avx512 = [...avx2, 'avx512f', 'avx512dq', 'avx512cd', 'avx512bw', 'avx512vl'] as const;
const vaes = [...avx512, 'vaes', 'vpclmulqdq', 'gfni', 'avx512ifma', 'sha_ni'] as const;

/** What the library itself demands of a processor for them. */
const NEEDS: Readonly<Record<Level, readonly string[]>> = {
  vaes_avx512: vaes,
  avx512,
  avx_gen4: avx2,
  avx_gen2: avx,
  sse,
};

/** The quickest level of a library for a processor with these flags of /proc/cpuinfo. */
export function chooseLevel({ levels }: KnownLibrary, flags: ReadonlySet<string>): Level | undefined {
  return levels.find((level) => NEEDS[level].every((flag) => flags.has(flag)));
}

/** Flags that all processors of /proc/cpuinfo have: the kernel leaves out what it does not let programs use. */
export function commonFlags(cpuinfo: string): ReadonlySet<string> {
  const each = [...cpuinfo.matchAll(/^flags\s*:(.*)$/gm)].map(([, flags]) => new Set(flags!.trim().split(/\s+/)));
  const [first = new Set<string>(), ...others] = each;
  return new Set([...first].filter((flag) => others.every((other) => other.has(flag))));
}

/** IMB_VERSION_NUM is 0x00MMNNPP. @throws ProviderUnavailableError when it is not the version that is known */
export function checkVersion({ soname, version }: KnownLibrary, versionNumber: number): void {
  const found = [versionNumber >>> 16, (versionNumber >>> 8) & 0xff];
  if (found[0] !== version[0] || found[1] !== version[1]) {
    throw new ProviderUnavailableError(`${soname} is version ${found.join('.')}, required is ${version.join('.')}`);
  }
}

let bound: IpsecMb | undefined;

/** @throws NativeUnavailableError, ProviderUnavailableError saying what is missing */
export function ipsecMb(): IpsecMb {
  bound ??= bindLibrary();
  return bound;
}

function bindLibrary(): IpsecMb {
  if (process.arch !== 'x64') {
    throw new ProviderUnavailableError(`libipsec-mb is for x86-64 processors, this is ${process.arch}`);
  }
  const { known, library } = openKnown();
  checkVersion(known, library.func<() => number>('unsigned int imb_get_version()')());
  const level = chooseLevel(known, commonFlags(readCpuinfo()));
  if (level === undefined) throw new ProviderUnavailableError('the processor has no AES instructions');
  return { level, gcm: new Map([16, 24, 32].map((length) => [length, bindGcm(library, length * 8, level)])) };
}

/** @throws ProviderUnavailableError saying why each library cannot be opened */
function openKnown(): { readonly known: KnownLibrary; readonly library: NativeLibrary } {
  const missing: string[] = [];
  for (const known of LIBRARIES) {
    try {
      return { known, library: openLibrary(known.soname) };
    } catch (error) {
      if (!(error instanceof NativeUnavailableError)) throw error;
      missing.push(error.message);
    }
  }
  throw new ProviderUnavailableError(missing.join('; '));
}

function readCpuinfo(): string {
  try {
    return readFileSync('/proc/cpuinfo', 'latin1');
  } catch {
    throw new ProviderUnavailableError('/proc/cpuinfo, which lists what the processor can do, cannot be read');
  }
}

function bindGcm(library: NativeLibrary, keyBits: number, level: Level): GcmFunctions {
  const parameters =
    'uintptr_t keyData, uintptr_t context, uintptr_t out, uintptr_t input, uint64_t length, uintptr_t iv, ' +
    'uintptr_t aad, uint64_t aadLength, uintptr_t tag, uint64_t tagLength';
  return {
    expand: library.func(`void aes_gcm_pre_${keyBits}_${level}(uintptr_t key, uintptr_t keyData)`),
    encrypt: library.func(`void aes_gcm_enc_${keyBits}_${level}(${parameters})`),
    decrypt: library.func(`void aes_gcm_dec_${keyBits}_${level}(${parameters})`),
  };
}

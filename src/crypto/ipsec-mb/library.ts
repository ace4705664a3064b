/**
 * libipsec-mb (Debian's libipsec-mb1), found and checked at run time. It exports AES-GCM for each level of x86-64
 * processors; the caller chooses one that the processor has, since another ends the process with SIGILL.
 */
import { readFileSync } from 'node:fs';
import { type NativeLibrary, openLibrary } from '../ffi/native.ts';
import { ProviderUnavailableError } from '../provider.ts';

const SONAME = 'libIPSec_MB.so.1';

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

/** From the quickest to the slowest, with what the library itself demands of a processor for them. */
const levels: readonly { readonly name: Level; readonly needs: readonly string[] }[] = [
  { name: 'vaes_avx512', needs: vaes },
  { name: 'avx512', needs: avx512 },
  { name: 'avx_gen4', needs: avx2 },
  { name: 'avx_gen2', needs: avx },
  { name: 'sse', needs: sse },
];

/** The quickest level for a processor with these flags of /proc/cpuinfo. */
export function chooseLevel(flags: ReadonlySet<string>): Level | undefined {
  return levels.find(({ needs }) => needs.every((flag) => flags.has(flag)))?.name;
}

/** Flags that all processors of /proc/cpuinfo have: the kernel leaves out what it does not let programs use. */
export function commonFlags(cpuinfo: string): ReadonlySet<string> {
  const each = [...cpuinfo.matchAll(/^flags\s*:(.*)$/gm)].map(([, flags]) => new Set(flags!.trim().split(/\s+/)));
  const [first = new Set<string>(), ...others] = each;
  return new Set([...first].filter((flag) => others.every((other) => other.has(flag))));
}

/** IMB_VERSION_NUM is 0x00MMNNPP. Sizes of structures are known for 1.3 alone. */
export function checkVersion(versionNumber: number): void {
  const major = versionNumber >>> 16;
  const minor = (versionNumber >>> 8) & 0xff;
  if (major !== 1 || minor !== 3) {
    throw new ProviderUnavailableError(`${SONAME} is version ${major}.${minor}, of which 1.3 is wanted`);
  }
}

let bound: IpsecMb | undefined;

/** @throws ProviderUnavailableError saying what is missing */
export function ipsecMb(): IpsecMb {
  bound ??= bindLibrary();
  return bound;
}

function bindLibrary(): IpsecMb {
  if (process.arch !== 'x64') {
    throw new ProviderUnavailableError(`libipsec-mb is for x86-64 processors, this is ${process.arch}`);
  }
  const library = openLibrary(SONAME);
  checkVersion(library.func<() => number>('unsigned int imb_get_version()')());
  const level = chooseLevel(commonFlags(readCpuinfo()));
  if (level === undefined) throw new ProviderUnavailableError('the processor has no AES instructions');
  return { level, gcm: new Map([16, 24, 32].map((length) => [length, bindGcm(library, length * 8, level)])) };
}

function readCpuinfo(): string {
  try {
    return readFileSync('/proc/cpuinfo', 'latin1');
  } catch {
    throw new ProviderUnavailableError('/proc/cpuinfo cannot be read, which tells what the processor can do');
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

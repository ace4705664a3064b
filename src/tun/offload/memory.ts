/**
 * The memory in which a worker's packet buffers live, and the checksums that work in it: one WebAssembly memory and
 * the module of checksum.wat, or, where WebAssembly SIMD is missing, an ordinary buffer and the TypeScript twin.
 *
 * It never grows: views of it, and its address in system calls, stay valid for its life.
 */
import { fromHex } from '../../base/bytes.ts';
import type { Checksums } from './checksum.ts';
import { TypescriptChecksums } from './checksum.ts';
import { checksumModule } from './checksum-module.gen.ts';

/** Regions start at multiples of it: the size of a cache line, and what libipsec-mb asks for its keys. */
const ALIGNMENT = 64;
const WASM_PAGE = 65_536;

/** How a `PacketMemory` computes checksums. */
export interface PacketMemoryOptions {
  /** False: the TypeScript twin, wherever the program runs. */
  readonly wasm?: boolean;
}

/** Memory of one fixed size, for batches and for the code that computes checksums in it. */
export class PacketMemory {
  readonly size: number;
  /** For buffers of this memory only; see `checksumsFor`. @internal */
  readonly checksums: Checksums;
  readonly #buffer: ArrayBufferLike;
  readonly #twin: TypescriptChecksums = new TypescriptChecksums();
  #used = 0;
  /** The buffer that was asked about last: to look where one lives takes longer than to compare it. */
  #asked: Uint8Array | undefined;
  #answer: Checksums = this.#twin;

  /** @param size in bytes, rounded up to whole pages; what is never touched costs address space alone */
  constructor(size: number, options: PacketMemoryOptions = {}) {
    const pages = Math.max(1, Math.ceil(size / WASM_PAGE));
    const wasm = options.wasm === false ? undefined : startWasm(pages);
    this.size = pages * WASM_PAGE;
    this.#buffer = wasm?.buffer ?? new ArrayBuffer(this.size);
    this.checksums = wasm?.checksums ?? this.#twin;
  }

  /**
   * A region of its own, for the memory's life: give this function to `PacketBatch`.
   *
   * @throws RangeError when nothing is left: the memory was made too small
   */
  readonly allocate = (bytes: number): Uint8Array => {
    const at = Math.ceil(this.#used / ALIGNMENT) * ALIGNMENT;
    if (at + bytes > this.size) {
      throw new RangeError(`packet memory of ${this.size} bytes has ${this.size - at} left, needed ${bytes}`);
    }
    this.#used = at + bytes;
    return new Uint8Array(this.#buffer, at, bytes);
  };

  /** The largest region that can still be had. */
  get left(): number {
    return this.size - Math.ceil(this.#used / ALIGNMENT) * ALIGNMENT;
  }

  /**
   * The quickest checksums that work on `buffer`, wherever it lives. Ask once for each batch, not for each packet.
   * @internal
   */
  checksumsFor(buffer: Uint8Array): Checksums {
    if (buffer !== this.#asked) {
      this.#asked = buffer;
      this.#answer = buffer.buffer === this.#buffer ? this.checksums : this.#twin;
    }
    return this.#answer;
  }
}

/** The part that is used of the WebAssembly JavaScript interface, which is no part of ECMAScript's own library. */
interface WasmApi {
  readonly Memory: new (limits: { initial: number; maximum: number }) => { readonly buffer: ArrayBuffer };
  readonly Module: new (bytes: Uint8Array) => object;
  readonly Instance: new (module: object, imports: object) => { readonly exports: unknown };
  validate(bytes: Uint8Array): boolean;
}

interface WasmExports {
  sum(at: number, length: number, initial: number): number;
  copySum(from: number, to: number, length: number, initial: number): number;
}

function startWasm(pages: number): { buffer: ArrayBuffer; checksums: Checksums } | undefined {
  const api = (globalThis as { WebAssembly?: WasmApi }).WebAssembly;
  const bytes = fromHex(checksumModule);
  if (api === undefined || !api.validate(bytes)) return undefined;
  let memory: { readonly buffer: ArrayBuffer };
  try {
    memory = new api.Memory({ initial: pages, maximum: pages });
  } catch {
    // The engine reserves gigabytes of address space, which a limit (ulimit -v) may deny. The twin needs none.
    return undefined;
  }
  const { exports } = new api.Instance(new api.Module(bytes), { packets: { memory } });
  return { buffer: memory.buffer, checksums: new WasmChecksums(exports as WasmExports) };
}

class WasmChecksums implements Checksums {
  readonly kind = 'wasm';
  readonly #sum: WasmExports['sum'];
  readonly #copySum: WasmExports['copySum'];

  constructor(exports: WasmExports) {
    this.#sum = exports.sum;
    this.#copySum = exports.copySum;
  }

  sum(buffer: Uint8Array, at: number, length: number, initial: number): number {
    return this.#sum(buffer.byteOffset + at, length, initial);
  }

  copySum(from: Uint8Array, fromAt: number, to: Uint8Array, toAt: number, length: number, initial: number): number {
    return this.#copySum(from.byteOffset + fromAt, to.byteOffset + toAt, length, initial);
  }
}

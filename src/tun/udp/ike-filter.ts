/**
 * Sorts IKE and ESP on one UDP port, in the kernel: several sockets share the port (SO_REUSEPORT), and a filter looks at the
 * first bytes of each datagram (RFC 3948 §2). So IKE has a queue of its own, which no flood of ESP can fill; ESP has one or
 * more, and the SPI of an SA decides which.
 *
 * Kernel interface: socket(7), linux/filter.h; Documentation/networking/filter.rst.
 */
import { libc } from '../../sys/libc.ts';
import { addressOf } from '../../sys/native-memory.ts';
import { SOL_SOCKET, writePointer } from './layout.ts';

const SO_ATTACH_REUSEPORT_CBPF = 51;

/** BPF_LD + BPF_W with BPF_LEN or BPF_ABS, BPF_JMP with BPF_JGE or BPF_JEQ, BPF_ALU with BPF_MOD or BPF_ADD, BPF_RET. */
const LOAD_LENGTH = 0x80;
const LOAD_WORD = 0x20;
const JUMP_IF_AT_LEAST = 0x35;
const JUMP_IF_EQUAL = 0x15;
const MODULO = 0x94;
const ADD = 0x04;
const RETURN = 0x06;
const RETURN_ACCUMULATOR = 0x16;

/** Places among the sockets of the port: in the order in which they were bound. */
const IKE_SOCKET = 0;
const FIRST_ESP_SOCKET = 1;
const MARKER_LENGTH = 4;

type Instruction = readonly [operation: number, jumpIfTrue: number, jumpIfFalse: number, operand: number];

/** Short datagrams are IKE's: keepalives. */
function program(espQueues: number): readonly Instruction[] {
  return [
    [LOAD_LENGTH, 0, 0, 0],
    [JUMP_IF_AT_LEAST, 0, 2, MARKER_LENGTH],
    [LOAD_WORD, 0, 0, 0],
    [JUMP_IF_EQUAL, 0, 1, 0],
    [RETURN, 0, 0, IKE_SOCKET],
    [MODULO, 0, 0, espQueues],
    [ADD, 0, 0, FIRST_ESP_SOCKET],
    [RETURN_ACCUMULATOR, 0, 0, 0],
  ];
}

/** struct sock_filter: u16 code, u8 jt, u8 jf, u32 k. */
const FILTER_SIZE = 8;
/** struct sock_fprog: u16 len, pointer. */
const FPROG_WORDS = 4;

/** Makes the kernel sort datagrams among this socket and those bound to the port after it. False where it cannot. */
export function partIkeFromEsp(fd: number, espQueues: number): boolean {
  const instructions = program(espQueues);
  const filter = new Uint8Array(new ArrayBuffer(instructions.length * FILTER_SIZE));
  const view = new DataView(filter.buffer);
  for (const [index, [code, ifTrue, ifFalse, operand]] of instructions.entries()) {
    const at = index * FILTER_SIZE;
    view.setUint16(at, code, true);
    view.setUint8(at + 2, ifTrue);
    view.setUint8(at + 3, ifFalse);
    view.setUint32(at + 4, operand, true);
  }
  const fprog = new Int32Array(FPROG_WORDS);
  fprog[0] = instructions.length;
  writePointer(fprog, 2, addressOf(filter));
  return libc().setsockopt(fd, SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, new Uint8Array(fprog.buffer)) === 0;
}

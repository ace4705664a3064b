/**
 * IKE and ESP on one UDP port, parted by the kernel: two sockets share the port (SO_REUSEPORT), and a filter looks at the
 * first bytes of each datagram (RFC 3948 §2). So each has a queue of its own, and no flood of ESP crowds out IKE.
 *
 * Kernel interface: socket(7), linux/filter.h; Documentation/networking/filter.rst.
 */
import { addressOf, libc } from './libc.ts';
import { SOL_SOCKET, writePointer } from './socket-layout.ts';

const SO_ATTACH_REUSEPORT_CBPF = 51;

/** BPF_LD + BPF_W with BPF_LEN or BPF_ABS, BPF_JMP with BPF_JGE or BPF_JEQ, BPF_RET. */
const LOAD_LENGTH = 0x80;
const LOAD_WORD = 0x20;
const JUMP_IF_AT_LEAST = 0x35;
const JUMP_IF_EQUAL = 0x15;
const RETURN = 0x06;

/** Places among the sockets of the port: in the order in which they were bound. */
const IKE_SOCKET = 0;
const ESP_SOCKET = 1;
const MARKER_LENGTH = 4;

/** Operation, steps to jump over when it holds, when it does not, operand. Short datagrams are IKE's: keepalives. */
const PROGRAM: readonly (readonly [number, number, number, number])[] = [
  [LOAD_LENGTH, 0, 0, 0],
  [JUMP_IF_AT_LEAST, 0, 2, MARKER_LENGTH],
  [LOAD_WORD, 0, 0, 0],
  [JUMP_IF_EQUAL, 0, 1, 0],
  [RETURN, 0, 0, IKE_SOCKET],
  [RETURN, 0, 0, ESP_SOCKET],
];

/** struct sock_filter: u16 code, u8 jt, u8 jf, u32 k. */
const FILTER_SIZE = 8;
/** struct sock_fprog: u16 len, pointer. */
const FPROG_WORDS = 4;

/** Has the kernel part what comes to the port of a socket. False where it cannot. */
export function partIkeFromEsp(fd: number): boolean {
  const filter = new Uint8Array(new ArrayBuffer(PROGRAM.length * FILTER_SIZE));
  const view = new DataView(filter.buffer);
  for (const [index, [code, ifTrue, ifFalse, operand]] of PROGRAM.entries()) {
    const at = index * FILTER_SIZE;
    view.setUint16(at, code, true);
    view.setUint8(at + 2, ifTrue);
    view.setUint8(at + 3, ifFalse);
    view.setUint32(at + 4, operand, true);
  }
  const program = new Int32Array(FPROG_WORDS);
  program[0] = PROGRAM.length;
  writePointer(program, 2, addressOf(filter));
  return libc().setsockopt(fd, SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, new Uint8Array(program.buffer)) === 0;
}

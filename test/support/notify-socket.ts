/** The end of sd_notify(3) that a service manager holds: a Unix datagram socket. */
import { onTestFinished } from 'vitest';
import { libc } from '../../src/sys/libc.ts';

const AF_UNIX = 1;
const SOCK_DGRAM_CLOEXEC_NONBLOCK = 0x8_0802;

export class NotifySocket {
  readonly #fd: number;
  #closed = false;

  private constructor(fd: number) {
    this.#fd = fd;
  }

  /** @param name a path, or `@` and a name that is in no folder */
  static open(name: string): NotifySocket {
    const calls = libc();
    const fd = calls.socket(AF_UNIX, SOCK_DGRAM_CLOEXEC_NONBLOCK, 0);
    const address = Buffer.concat([Buffer.of(AF_UNIX, 0), Buffer.from(name.replace(/^@/, '\0'))]);
    if (calls.bind(fd, address) < 0) throw new Error(`cannot bind ${name}: ${calls.errorText(calls.errno())}`);
    const socket = new NotifySocket(fd);
    onTestFinished(() => socket.close());
    return socket;
  }

  /** What came since the last call. */
  receive(): string[] {
    const messages: string[] = [];
    const buffer = Buffer.alloc(4096);
    for (;;) {
      const length = libc().recv(this.#fd, buffer, 0);
      if (length < 0) return messages;
      messages.push(buffer.toString('utf8', 0, length));
    }
  }

  close(): void {
    if (!this.#closed) libc().close(this.#fd);
    this.#closed = true;
  }
}

/** Much data over TCP, and whether it arrived as it was sent. */
import { fileURLToPath } from 'node:url';
import type { Host, Namespace } from './namespace.ts';
import { STARTING, waitFor } from './process.ts';

const PROGRAM = fileURLToPath(new URL('transfer.mjs', import.meta.url));

export interface TransferOptions {
  readonly source: string;
  readonly destination: string;
  readonly port: number;
  readonly bytes: number;
  /** Milliseconds. */
  readonly timeout?: number;
}

/** SHA-256 of what was sent and of what arrived, in hexadecimal. */
export interface Transfer {
  readonly sent: string;
  readonly arrived: string;
}

export async function transfer(from: Host, to: Namespace, options: TransferOptions): Promise<Transfer> {
  const { source, destination, port, bytes, timeout = 30_000 } = options;
  const receiver = to.spawn('receiver', [process.execPath, PROGRAM, 'receive', destination, String(port)]);
  try {
    await waitFor('the receiver', () => (receiver.output.includes('ready') ? true : undefined), STARTING);
    const argv = [process.execPath, PROGRAM, 'send', source, destination, String(port), String(bytes)];
    const { stdout } = await from.exec(argv, { timeout });
    const [, arrived] = await waitFor(
      'the receiver to have all',
      () => /ready\s+([0-9a-f]{64})/.exec(receiver.output) ?? undefined,
      timeout,
    );
    return { sent: stdout.trim(), arrived: arrived! };
  } finally {
    await receiver.stop('SIGKILL');
  }
}

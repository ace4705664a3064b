import { randomBytes } from 'node:crypto';
import { readdirSync, statSync } from 'node:fs';
import { createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { describe, expect, it, onTestFinished } from 'vitest';
import { offerSecret, takeSecret } from '../../src/daemon/hand-over.ts';
import { CONTROL_SOCKET } from '../../src/daemon/protocol.ts';
import { temporaryFolder } from '../support/daemon.ts';

const NAME = '.0123456789ab';

/** A client that does something else than to offer a value. */
async function badClient(folder: string, serve: (socket: Socket) => void): Promise<void> {
  const sockets: Socket[] = [];
  const server = createServer((socket) => {
    sockets.push(socket);
    socket.on('error', () => undefined);
    serve(socket);
  });
  await new Promise<void>((resolve) => server.listen(join(folder, NAME), resolve));
  onTestFinished(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
}

describe('the value of a secret', () => {
  it.each([0, 1, 4_096, 65_536])('of %d bytes is taken as it is offered, once, and leaves no file', async (length) => {
    const folder = temporaryFolder();
    const value = randomBytes(length);
    const offer = await offerSecret(folder, value);
    expect(offer.name.length).toBeLessThanOrEqual(CONTROL_SOCKET.length);
    expect(statSync(join(folder, offer.name)).mode & 0o777).toBe(0o600);
    expect(Buffer.from(await takeSecret(folder, offer.name))).toEqual(value);
    await expect(takeSecret(folder, offer.name)).rejects.toThrow(/ENOENT|ECONNREFUSED/);
    offer.close();
    expect(readdirSync(folder)).toEqual([]);
  });

  it('that nobody takes is taken back', async () => {
    const folder = temporaryFolder();
    const offer = await offerSecret(folder, Buffer.from('a secret'));
    offer.close();
    await expect.poll(() => readdirSync(folder)).toEqual([]);
  });

  it.each(['', 'x', '../../etc/passwd', 'sectunneld.sock', '.0123456789ab/..', '.0123456789abc'])(
    'is not looked for in %j',
    (name) => {
      expect(() => takeSecret(temporaryFolder(), name)).toThrow(/is no offer of a value/);
    },
  );

  it('that is too long is refused', async () => {
    const folder = temporaryFolder();
    await badClient(folder, (socket) => socket.end(Buffer.alloc(65_537)));
    await expect(takeSecret(folder, NAME)).rejects.toThrow('it has more than 65536 bytes');
  });

  it('that does not come, or has no end, is waited for two seconds', async () => {
    const folder = temporaryFolder();
    await badClient(folder, (socket) => socket.write('the beginning'));
    const start = performance.now();
    await expect(takeSecret(folder, NAME)).rejects.toThrow('it does not come');
    expect(performance.now() - start).toBeGreaterThan(1_900);
  });
});

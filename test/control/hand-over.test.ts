import { randomBytes } from 'node:crypto';
import { chownSync, mkdirSync, readdirSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { describe, expect, it, onTestFinished } from 'vitest';
import { DaemonClient } from '../../src/control/client.ts';
import { offerSecret, removeOffers, takeSecret } from '../../src/control/hand-over.ts';
import { CONTROL_SOCKET } from '../../src/control/protocol.ts';
import { temporaryFolder } from '../support/daemon.ts';

const NAME = '.0123456789ab';
const UUID = '11111111-2222-3333-4444-555555555501';
/** Neither root nor the user of the tests. */
const OTHER = 65_534;

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
  it('is never accessible to other users, whatever the umask of the client is', async () => {
    const folder = temporaryFolder();
    const mask = process.umask(0);
    onTestFinished(() => void process.umask(mask));
    const offered = offerSecret(folder, Buffer.from('a secret'));
    const [name] = readdirSync(folder);
    expect(statSync(join(folder, name!)).mode & 0o777).toBe(0o600);
    expect(process.umask(0)).toBe(0);
    (await offered).close();
  });

  it.runIf(process.geteuid?.() === 0)(
    "is offered by root as the folder's owner, without a change by name",
    async () => {
      const folder = temporaryFolder();
      chownSync(folder, OTHER, OTHER);
      const offered = offerSecret(folder, Buffer.from('a secret'));
      const [name] = readdirSync(folder);
      const path = join(folder, name!);
      expect(statSync(path)).toMatchObject({ uid: OTHER, gid: OTHER });
      // What the owner of the folder may do: a link in the socket's place to a file of root's.
      const target = join(temporaryFolder(), 'of root');
      writeFileSync(target, '', { mode: 0o640 });
      rmSync(path);
      symlinkSync(target, path);
      (await offered).close();
      expect([process.geteuid?.(), process.getegid?.()]).toEqual([0, 0]);
      expect(statSync(target)).toMatchObject({ uid: 0, gid: 0, mode: 0o100640 });
    },
  );

  it('is not offered where no daemon listens, and nothing is left there', async () => {
    const folder = temporaryFolder();
    const client = new DaemonClient(folder);
    await expect(client.setSecret(UUID, Buffer.from('a secret'))).rejects.toThrow(/no sectunneld listens/);
    expect(readdirSync(folder)).toEqual([]);
    const long = join(folder, 'x'.repeat(100));
    mkdirSync(long);
    await expect(new DaemonClient(long).setSecret(UUID, Buffer.from('a secret'))).rejects.toThrow(/and 107 fit/);
    expect(readdirSync(folder)).toEqual(['x'.repeat(100)]);
  });

  it('that a client left behind is removed by the next daemon', async () => {
    const folder = temporaryFolder();
    writeFileSync(join(folder, NAME), '');
    writeFileSync(join(folder, '.lock'), '');
    removeOffers(folder);
    expect(readdirSync(folder)).toEqual(['.lock']);
  });

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

  it('is closed when no client takes it', async () => {
    const folder = temporaryFolder();
    const offer = await offerSecret(folder, Buffer.from('a secret'));
    offer.close();
    await expect.poll(() => readdirSync(folder)).toEqual([]);
  });

  it.each(['', 'x', '../../etc/passwd', 'sectunneld.sock', '.0123456789ab/..', '.0123456789abc'])(
    'is not looked for in %j',
    (name) => {
      expect(() => takeSecret(temporaryFolder(), name)).toThrow(/is not the name of an offered value/);
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
    await expect(takeSecret(folder, NAME)).rejects.toThrow('nothing came within 2 s');
    expect(performance.now() - start).toBeGreaterThan(1_900);
  });
});

/**
 * A daemon on a real kernel when the system refuses one of the calls that it makes, or all from one on: descriptors,
 * memory, processes. It lives, says what there is none left of, leaves nothing half done, and goes on when there is some.
 */
import { spawnSync } from 'node:child_process';
import { EventEmitter } from 'node:events';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { SectunnelError } from '../../src/base/error.ts';
import { utf8 } from '../../src/base/text.ts';
import { DaemonClient } from '../../src/control/client.ts';
import { Service } from '../../src/daemon/service.ts';
import { chooseCrypto } from '../../src/host/crypto.ts';
import { linuxPlatform } from '../../src/host/linux.ts';
import { type LogLine, recordingLog, SECRET_UUID, tunnelDocument } from '../support/daemon.ts';
import { type Fault, faults } from '../support/faults.ts';
import { MEMORY } from '../support/folder.ts';
import { missing } from '../support/lab/needs.ts';
import { enterNewNamespace, ipCommand } from '../tun/namespace.ts';

vi.mock('../../src/sys/libc.ts', async (original) => {
  const { faultyCalls } = await import('../support/faults.ts');
  const actual = await original<typeof import('../../src/sys/libc.ts')>();
  return { ...actual, libc: faultyCalls(actual.libc) };
});

vi.mock('node:child_process', async (original) => {
  const { faults: armed, systemError } = await import('../support/faults.ts');
  const actual = await original<typeof import('node:child_process')>();
  const spawn = (...words: Parameters<typeof actual.spawn>): unknown => {
    const code = armed.of('spawn');
    if (code === undefined) return actual.spawn(...words);
    const error = systemError(code, `spawn ${words[0]}`);
    // As Node does: of most failures an event tells, and where there are no descriptors the child has no pipes.
    if (code === 'ENOMEM') throw error;
    const child = new EventEmitter();
    process.nextTick(() => child.emit('error', error));
    return child;
  };
  return { ...actual, spawn };
});

const SPAWN = /spawn/;
/** What may be refused, and how: all calls by which something is had that may be used up. */
const EDGES: readonly (readonly [edge: RegExp, code: Fault['code'], says: RegExp])[] = [
  [/^libc\.(open|socket|epollCreate|eventfd)$/, 'EMFILE', /EMFILE.*LimitNOFILE=/],
  [/^libc\.(epollControl)$/, 'ENOSPC', /ENOSPC.*max_user_watches/],
  [/^libc\.(bind|ioctl)$/, 'ENOMEM', /ENOMEM.*MemoryMax=/],
  [/^libc\.(send|sendInThread)$/, 'ENOBUFS', /ENOBUFS.*net\.core/],
  [/^spawn$/, 'EMFILE', /EMFILE.*LimitNOFILE=/],
  [/^spawn$/, 'ENOMEM', /ENOMEM.*MemoryMax=/],
  [/^spawn$/, 'EAGAIN', /EAGAIN.*TasksMax=/],
];

const NAME = 'net';
const wants = missing(['namespaces', 'nftables']);

describe.skipIf(wants.length > 0)('when there is no more of something', () => {
  const lines: LogLine[] = [];
  let folder: string;
  let leave: () => void;
  let service: Service;
  let client: DaemonClient;
  let options: Omit<ConstructorParameters<typeof Service>[0], 'platform'>;

  const open = async (): Promise<void> => {
    const opened = new Service({ ...options, platform: linuxPlatform() });
    try {
      await opened.open();
    } catch (error) {
      await opened.close();
      throw error;
    }
    service = opened;
    client = await DaemonClient.connect(options.runDir);
  };

  beforeAll(async () => {
    leave = enterNewNamespace();
    ipCommand('link', 'set', 'lo', 'up');
    ipCommand('addr', 'add', '192.0.2.1/24', 'dev', 'lo');
    folder = mkdtempSync(join(MEMORY, 'sectunnel-test-'));
    const folders = { configDir: `${folder}/config`, runDir: `${folder}/run` };
    options = { ...folders, crypto: chooseCrypto('auto'), log: recordingLog(lines) };
    await open();
    await client.call('secret-define', { xml: `<secret><uuid>${SECRET_UUID}</uuid></secret>` });
    await client.setSecret(SECRET_UUID, utf8('a pre-shared key of tests'));
    await client.call('define', { xml: tunnelDocument({ start: 'respond' }) });
    // What is loaded at first use has its descriptors then.
    await client.call('start', { name: NAME });
    await client.call('destroy', { name: NAME });
  });
  afterAll(async () => {
    client.close();
    await service.close();
    leave();
    rmSync(folder, { recursive: true });
  });

  /** What stands in the kernel, and the descriptors that are open. */
  const standing = (): object => ({
    descriptors: readdirSync('/proc/self/fd').length,
    links: ipCommand('-o', 'link').split('\n').length,
    rules: ipCommand('rule') + ipCommand('-6', 'rule'),
    routes: ipCommand('route', 'show', 'table', 'all', 'proto', '133'),
    fence: spawnSync('nft', ['-t', 'list', 'chains'], { encoding: 'utf8' }).stdout.match(/chain .*/g),
  });

  const outcome = (work: Promise<unknown>): Promise<unknown> =>
    work.then(
      () => undefined,
      (error: unknown) => error,
    );

  /** Has calls of a change fail, one after another, each in an attempt of its own, until one meets none. */
  const eachFault = async (
    [edge, code, says]: (typeof EDGES)[number],
    lasting: boolean,
    change: () => Promise<unknown>,
    check: (refused: boolean) => Promise<void>,
  ): Promise<number> => {
    // Where all that follow fail too, the calls between differ little.
    for (let nth = 1; ; nth = lasting ? 2 * nth : nth + 1) {
      lines.length = 0;
      faults.arm({ edge, nth, code, lasting });
      const error = await outcome(change());
      if (!faults.lift()) {
        expect(error).toBeUndefined();
        return nth - 1;
      }
      if (error !== undefined) {
        expect(error).toBeInstanceOf(SectunnelError);
        expect(error).toMatchObject({ code: 'system', message: expect.stringMatching(says) });
      }
      expect(lines.filter(({ text }) => /internal|request failed|bug/.test(text))).toEqual([]);
      await check(error !== undefined);
    }
  };

  const repeat = (): Promise<void> => service.daemon.runner.installed.repeat([]);

  describe.each([
    ['once', false],
    ['from then on', true],
  ])('%s', (_, lasting) => {
    it.each(EDGES)('a tunnel does not start, and nothing of it stands: %s %s', async (...edge) => {
      const before = standing();
      const met = await eachFault(
        edge,
        lasting,
        () => client.call('start', { name: NAME }),
        async (refused) => {
          // A device may do with less than was asked for.
          if (!refused) await client.call('destroy', { name: NAME });
          await repeat();
          expect(standing()).toEqual(before);
        },
      );
      // It takes no program to start one.
      if (SPAWN.test(edge[0].source)) expect(met).toBe(0);
      else expect(met).toBeGreaterThan(0);
      await client.call('destroy', { name: NAME });
      expect(standing()).toEqual(before);
    });

    it.each(EDGES)('a tunnel stops, and what could not be removed is removed later: %s %s', async (...edge) => {
      const before = standing();
      await client.call('start', { name: NAME });
      await eachFault(
        edge,
        lasting,
        () => client.call('destroy', { name: NAME }),
        async () => {
          expect(await client.call('info', { name: NAME })).toMatchObject({ active: false });
          await repeat();
          expect(standing()).toEqual(before);
          await client.call('start', { name: NAME });
        },
      );
      await outcome(client.call('destroy', { name: NAME }));
      expect(standing()).toEqual(before);
    });

    it.each(EDGES)('status answers: %s %s', async (...edge) => {
      await client.call('start', { name: NAME });
      await eachFault(
        edge,
        lasting,
        async () => expect(await client.call('status', {})).toMatchObject({ tunnels: [{ name: NAME }] }),
        async (refused) => expect(refused).toBe(false),
      );
      await client.call('destroy', { name: NAME });
    });
  });

  it.each(EDGES)('a daemon starts, or says why it does not, with a tunnel that ran: %s %s', async (...edge) => {
    await client.call('start', { name: NAME });
    const live = join(options.runDir, 'live', `${NAME}.xml`);
    const cutOff = async (): Promise<void> => {
      const document = readFileSync(live);
      client.close();
      await service.close();
      writeFileSync(live, document);
    };
    await cutOff();
    await eachFault(
      edge,
      true,
      () => open().catch((error: unknown) => Promise.reject(new SectunnelError('system', String(error)))),
      async (refused) => {
        if (refused) await open();
        await cutOff();
      },
    );
    await outcome(client.call('destroy', { name: NAME }));
  });
});

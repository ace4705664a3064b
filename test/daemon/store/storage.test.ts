/**
 * What a daemon does when a file cannot be written, read or removed, at each call of the file system that a change makes:
 * it changes all or nothing, or says which part; it lives, answers in the system's words, leaves nothing over; and the same
 * change succeeds when the disk can again.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, describe, expect, it, onTestFinished, vi } from 'vitest';
import { SectunnelError } from '../../../src/base/error.ts';
import { utf8 } from '../../../src/base/text.ts';
import { refusalOf } from '../../../src/daemon/control/refusing.ts';
import { MemoryNetwork } from '../../../src/tun/udp/memory.ts';
import { address, SECRET_UUID, TestDaemon, tunnelDocument } from '../../support/daemon.ts';
import { faults } from '../../support/faults.ts';
import { MEMORY, temporaryFolder } from '../../support/folder.ts';

vi.mock('node:fs', async (original) => {
  const { faulty } = await import('../../support/faults.ts');
  return faulty('fs', await original<typeof import('node:fs')>());
});

afterEach(() => void faults.lift());

const OLD = tunnelDocument({ start: 'respond' });
const NEW = tunnelDocument({ start: 'respond', inner: ['10.1.0.0', '10.3.0.0'] });
const SECRET = { xml: `<secret><uuid>${SECRET_UUID}</uuid></secret>` };

/** What the daemon says, and what stands on its disk: a name for each document. */
interface Picture {
  readonly kept: string;
  readonly keptFile: string;
  readonly live: string;
  readonly liveFile: string;
  readonly autostart: boolean;
  readonly secret: string;
}

function nameOf(xml: string | undefined): string {
  if (xml === undefined) return 'none';
  return xml.includes('10.3.0.0') ? 'new' : 'old';
}

async function picture(test: TestDaemon): Promise<Picture> {
  const { configDir, runDir, client } = test;
  const file = (...path: string[]): string | undefined =>
    existsSync(join(...path)) ? readFileSync(join(...path), 'utf8') : undefined;
  const told = async (inactive: boolean): Promise<string | undefined> =>
    client.call('dumpxml', { name: 'net', inactive }).then(
      ({ xml }) => xml,
      () => undefined,
    );
  const info = await client.call('info', { name: 'net' }).catch(() => undefined);
  return {
    kept: info?.persistent === true ? nameOf(await told(true)) : 'none',
    keptFile: nameOf(file(configDir, 'net.xml')),
    live: info?.active === true ? nameOf(await told(false)) : 'none',
    liveFile: nameOf(file(runDir, 'live', 'net.xml')),
    autostart: info?.autostart === true,
    secret: `${file(configDir, 'secrets', `${SECRET_UUID}.xml`) === undefined ? 'none' : 'described'} ${file(configDir, 'secrets', `${SECRET_UUID}.base64`)}`,
  };
}

function leftovers(folder: string): string[] {
  return readdirSync(folder, { recursive: true, encoding: 'utf8' }).filter((name) => name.endsWith('.new'));
}

const descriptors = (): number => readdirSync('/proc/self/fd').length;

type Step = (test: TestDaemon) => Promise<unknown>;
const define: Step = ({ client }) => client.call('define', { xml: OLD });
const start: Step = ({ client }) => client.call('start', { name: 'net' });
const mark: Step = ({ client }) => client.call('autostart', { name: 'net', enable: true });
const update =
  (live: boolean, config: boolean): Step =>
  ({ client }) =>
    client.call('update', { xml: NEW, live, config });
/** Without the client's part, which would meet the faults too. */
const setValue =
  (value: string): Step =>
  async ({ daemon }) => {
    try {
      await daemon.secrets.setValue(SECRET_UUID, utf8(value));
    } catch (error) {
      throw refusalOf(error) ?? error;
    }
  };

/** A change, and what is there before it. */
const CHANGES: readonly (readonly [name: string, before: readonly Step[], change: Step])[] = [
  ['define', [], define],
  ['update --config', [define], update(false, true)],
  ['start', [define], start],
  ['update --live', [define, start], update(true, false)],
  ['update --live --config', [define, start], update(true, true)],
  ['restart', [define, start, update(false, true)], ({ client }) => client.call('restart', { name: 'net' })],
  ['destroy', [define, start], ({ client }) => client.call('destroy', { name: 'net' })],
  ['autostart', [define], mark],
  ['autostart --disable', [define, mark], ({ client }) => client.call('autostart', { name: 'net', enable: false })],
  ['undefine', [define, mark], ({ client }) => client.call('undefine', { name: 'net' })],
  ['secret-define', [], ({ client }) => client.call('secret-define', SECRET)],
  ['secret-set-value', [], setValue('another')],
  ['secret-undefine', [], ({ client }) => client.call('secret-undefine', { uuid: SECRET_UUID })],
];

async function prepared(before: readonly Step[]): Promise<TestDaemon> {
  const network = new MemoryNetwork();
  const test = new TestDaemon(network.host([address('192.0.2.1')]), temporaryFolder(MEMORY));
  await test.open();
  onTestFinished(() => test.close());
  await test.giveSecret();
  for (const step of before) await step(test);
  return test;
}

/** A tunnel that runs, though not all could be written, is no failure: what could not be is a warning. */
class Warned extends SectunnelError {}

const outcome = (work: Promise<unknown>): Promise<unknown> =>
  work.then(
    (result) => {
      const said = (result as { warnings?: string[] } | undefined)?.warnings?.filter((text) =>
        /\(E[A-Z]+\)/.test(text),
      );
      return said === undefined || said.length === 0 ? undefined : new Warned('system', said.join());
    },
    (error: unknown) => error,
  );

/** What the answer to a change must be, whatever failed of it. */
function expectTruth(error: unknown, before: Picture, now: Picture, after: Picture): void {
  if (error === undefined) {
    expect(now).toEqual(after);
    return;
  }
  expect(error).toBeInstanceOf(SectunnelError);
  const { code, message } = error as SectunnelError;
  expect(code, message).toBe('system');
  expect(message).toMatch(/ENOSPC|EROFS/);
  expect(message).not.toMatch(/internal|\n {4}at /);
  if (error instanceof Warned) expect({ ...now, liveFile: after.liveFile }).toEqual(after);
  // In memory and on the disk are the same, or it says what differs.
  expect(now.kept).toBe(now.keptFile);
  if (now.live !== now.liveFile)
    expect(message).toMatch(/next daemon starts|the next one does not restart|daemon keeps trying/);
  if (JSON.stringify(now) === JSON.stringify(before)) return;
  expect(message).toMatch(
    /runs|may not survive a power failure|next daemon starts|does not start with the daemon|is deleted, but|daemon keeps trying/,
  );
}

describe.each(CHANGES)('%s', (_, before, change) => {
  const round = async (nth: number, lasting: boolean): Promise<boolean> => {
    const test = await prepared(before);
    const was = await picture(test);
    const open = descriptors();
    const devices = test.plans.length;
    faults.arm({ edge: /^fs\./, nth, code: lasting ? 'EROFS' : 'ENOSPC', lasting });
    const error = await outcome(change(test));
    const met = faults.lift();
    const now = await picture(test);
    // A tunnel is not touched when what is to be written cannot be.
    if (
      error instanceof Error &&
      /cannot be written/.test(error.message) &&
      JSON.stringify(now) === JSON.stringify(was)
    ) {
      expect(test.plans.length).toBe(devices);
    }
    // One fault alone never costs the tunnel both documents.
    if (!lasting) expect(String(error)).not.toMatch(/daemon keeps trying/);
    const leftOver = (): string[] => [...leftovers(test.configDir), ...leftovers(test.runDir)];
    const said = error instanceof Error ? error.message : '';
    // The answer names a copy of a key. Other files stay only while nothing can be removed.
    for (const name of leftOver()) {
      expect(lasting).toBe(true);
      if (name.startsWith('secrets')) expect(said).toContain(name);
    }
    // The change again, if it is not made; the answer may be that it is.
    const again = await outcome(change(test));
    if (again !== undefined) expect(again).toMatchObject({ code: expect.stringMatching(/not-found|invalid-state/) });
    expectTruth(error, was, now, await picture(test));
    if (process.platform === 'linux' && before.length < 2) expect(descriptors()).toBe(open);
    await test.close();
    if (leftOver().length > 0) {
      await test.open();
      expect(leftOver()).toEqual([]);
      await test.close();
    }
    return met;
  };

  it.each([
    ['fails', false],
    ['and all that follow fail', true],
  ])('is made whole or not at all, or says what is, when one call %s', async (__, lasting) => {
    let nth = 1;
    while (await round(nth, lasting)) nth++;
    // As many as there are: opening the folder and the file, writing, making sure, closing, renaming.
    expect(nth).toBeGreaterThan(3);
  });
});

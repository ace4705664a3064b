/** Folders that others may change are not used, and what a crash left of a change is found and removed. */
import {
  chmodSync,
  chownSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { SectunnelError } from '../../../src/base/error.ts';
import { utf8 } from '../../../src/base/text.ts';
import { SecretStore } from '../../../src/daemon/secrets/secrets.ts';
import { makePrivateFolder, visibleFolder } from '../../../src/daemon/store/files.ts';
import {
  removeFile,
  removeLeftovers,
  replaceFile,
  replaceLink,
  stageFile,
} from '../../../src/daemon/store/replace-file.ts';
import { MemoryNetwork } from '../../../src/tun/udp/memory.ts';
import { address, SECRET_UUID, TestDaemon, temporaryFolder, tunnelDocument } from '../../support/daemon.ts';
import { type Fault, faults } from '../../support/faults.ts';

vi.mock('node:fs', async (original) => {
  const { faulty } = await import('../../support/faults.ts');
  return faulty('fs', await original<typeof import('node:fs')>());
});

afterEach(() => void faults.lift());

const USE = 'tests (--config-dir)';
const isRoot = process.geteuid?.() === 0;
const OTHER_USER = 4711;

function madeFolder(mode: number): string {
  const path = join(temporaryFolder(), 'config');
  mkdirSync(path);
  chmodSync(path, mode);
  return path;
}

describe('a folder', () => {
  it('is made with all above it, for this user alone', () => {
    const path = join(temporaryFolder(), 'a', 'b');
    makePrivateFolder(path, USE);
    for (const folder of [path, join(path, '..')]) expect(statSync(folder).mode & 0o777).toBe(0o700);
  });

  it.each([0o700, 0o750, 0o755])('of mode %o is used', (mode) => {
    const path = madeFolder(mode);
    makePrivateFolder(path, USE);
    expect(visibleFolder(path) === undefined).toBe(mode === 0o700);
  });

  it.each([0o777, 0o770, 0o722, 0o702, 0o1777])(
    'of mode %o is refused: the message has what was found, what is wanted, and the command',
    (mode) => {
      const path = madeFolder(mode);
      const found = mode.toString(8).padStart(4, '0');
      expect(() => makePrivateFolder(path, USE)).toThrow(SectunnelError);
      expect(() => makePrivateFolder(path, USE)).toThrow(
        `the folder ${path} for ${USE} cannot be used: it has mode ${found}, so others may change what is in it; ` +
          `0700 is required: chmod 700 ${path}`,
      );
    },
  );

  it('is refused below one in whose place others may put another, unless that is sticky', () => {
    const top = temporaryFolder();
    const path = join(top, 'middle', 'config');
    mkdirSync(path, { recursive: true, mode: 0o700 });
    chmodSync(top, 0o777);
    expect(() => makePrivateFolder(path, USE)).toThrow(/above it has mode 0777.*sticky bit, is required: chmod o-w /);
    chmodSync(top, 0o1777);
    makePrivateFolder(path, USE);
  });

  it('that is a link is refused, wherever it leads', () => {
    const path = join(temporaryFolder(), 'config');
    symlinkSync(madeFolder(0o700), path);
    expect(() => makePrivateFolder(path, USE)).toThrow(/it is a link to .*; name a folder itself/);
  });

  it('that is a file is refused', () => {
    const path = join(temporaryFolder(), 'config');
    writeFileSync(path, '');
    expect(() => makePrivateFolder(path, USE)).toThrow('it is no folder');
  });

  it.runIf(isRoot)('of another user is refused', () => {
    const path = madeFolder(0o700);
    chownSync(path, OTHER_USER, 0);
    expect(() => makePrivateFolder(path, USE)).toThrow(
      `it belongs to user ${OTHER_USER}; user 0 or root is required: chown 0 ${path}`,
    );
  });

  it('on a disk that is full is used by a daemon that starts', async () => {
    const test = await TestDaemon.start(new MemoryNetwork().host([address('192.0.2.1')]));
    await test.giveSecret();
    await test.client.call('define', { xml: tunnelDocument() });
    await test.client.call('autostart', { name: 'net', enable: true });
    await test.close();
    faults.arm({ edge: /(write|ftruncate|mkdir|symlink)Sync/, nth: 1, code: 'ENOSPC', lasting: true });
    await test.open();
    expect(faults.lift()).toBe(true);
    expect((await test.client.call('list', {})).tunnels).toMatchObject([{ name: 'net', active: true }]);
    const told = /live.*cannot be written: no space left on device.*the next one does not restart the tunnel/;
    expect(test.lines.find(({ level }) => level === 'error')?.text).toMatch(told);
    // When there is room again at the end the next daemon finds what ran.
    const live = join(test.runDir, 'live', 'net.xml');
    expect(existsSync(live)).toBe(false);
    await test.close();
    expect(readFileSync(live, 'utf8')).toContain('<name>net</name>');
  });

  it('that cannot be made is reported in the words of the system', () => {
    const file = join(temporaryFolder(), 'file');
    writeFileSync(file, '');
    expect(() => makePrivateFolder(join(file, 'config'), USE)).toThrow(/cannot be used: not a directory \(ENOTDIR\)/);
  });

  it.each(['config', 'run', 'config/secrets', 'config/autostart', 'run/live'])(
    'keeps a daemon from starting when it is %s and others may write to it',
    async (name) => {
      const test = new TestDaemon(new MemoryNetwork().host([address('192.0.2.1')]));
      mkdirSync(join(test.folder, name), { recursive: true, mode: 0o700 });
      chmodSync(join(test.folder, name), 0o777);
      await expect(test.open()).rejects.toThrow(/mode 0777.*0700 is required/);
    },
  );

  it('of secrets in which others see names is warned of', async () => {
    const network = new MemoryNetwork();
    const test = new TestDaemon(network.host([address('192.0.2.1')]));
    mkdirSync(join(test.configDir, 'secrets'), { recursive: true, mode: 0o700 });
    chmodSync(join(test.configDir, 'secrets'), 0o755);
    await test.open();
    await test.close();
    expect(test.lines.filter(({ level }) => level === 'warn')).toMatchObject([
      { text: expect.stringMatching(/secrets has mode 0755, so others may see the names in it; 0700 is required/) },
    ]);
  });
});

describe('a file', () => {
  const OLD = 'old content';

  function fileOf(content = OLD): string {
    const path = join(temporaryFolder(), 'net.xml');
    writeFileSync(path, content);
    return path;
  }

  it('is replaced whole, with the mode that is wanted, and nothing beside it', () => {
    const path = fileOf();
    replaceFile(path, 'new');
    expect([readFileSync(path, 'utf8'), statSync(path).mode & 0o777]).toEqual(['new', 0o600]);
    replaceFile(path, Buffer.from('newer'), 0o755);
    expect([readFileSync(path, 'utf8'), statSync(path).mode & 0o777]).toEqual(['newer', 0o755]);
    expect(readdirSync(join(path, '..'))).toEqual(['net.xml']);
  });

  it.each<[Fault['code'], RegExp]>([
    ['ENOSPC', /cannot be written: no space left on device \(ENOSPC\)\. No disk space left: make room/],
    ['EDQUOT', /cannot be written: .*quota.*: make room, or raise the quota/i],
    ['EROFS', /cannot be written: read-only file system \(EROFS\)$/],
    ['EIO', /cannot be written: i\/o error \(EIO\)$/],
    [
      'EMFILE',
      /cannot be written: too many open files \(EMFILE\)\. No file descriptors left \(the limit is \d+\): raise/,
    ],
  ])('that cannot be written for %s stays as it was, and the message has what to do', (code, message) => {
    for (const edge of [/openSync/, /writeSync/, /fsyncSync/, /renameSync/]) {
      const path = fileOf();
      faults.arm({ edge, nth: 1, code });
      expect(() => replaceFile(path, 'new'), String(edge)).toThrow(message);
      expect(faults.lift()).toBe(true);
      expect(readFileSync(path, 'utf8')).toBe(OLD);
      expect(readdirSync(join(path, '..'))).toEqual(['net.xml']);
    }
  });

  it('that is in place, in a folder whose fsync fails, is reported as written', () => {
    const path = fileOf();
    faults.arm({ edge: /fsyncSync/, nth: 2, code: 'EIO' });
    expect(() => replaceFile(path, 'new')).toThrow(/was written, but that may not survive a power failure: i\/o error/);
    faults.lift();
    expect(readFileSync(path, 'utf8')).toBe('new');
  });

  it('that is staged is not seen before it is wanted, and not at all when it is not', () => {
    const path = fileOf();
    const [first, second] = [stageFile(path, 'first'), stageFile(path, 'second')];
    expect(readFileSync(path, 'utf8')).toBe(OLD);
    second.commit();
    first.discard();
    expect(readFileSync(path, 'utf8')).toBe('second');
    expect(readdirSync(join(path, '..'))).toEqual(['net.xml']);
  });

  it('is removed if it is there', () => {
    const path = fileOf();
    removeFile(path);
    removeFile(path);
    expect(existsSync(path)).toBe(false);
  });
});

describe('what a crash left of a change', () => {
  // Also as versions before called it, by the number of a process that may be ours again.
  const LEFT = ['.net.xml.0123456789abcdef.new', `.net.xml.${process.pid}.new`];

  it('does not keep the next one from being made', () => {
    const path = join(temporaryFolder(), 'net.xml');
    for (const name of LEFT) writeFileSync(join(path, '..', name), '');
    replaceFile(path, 'content');
    replaceLink(join(path, '..', 'link'), 'net.xml');
    expect(readFileSync(join(path, '..', 'link'), 'utf8')).toBe('content');
  });

  it('is removed, and nothing else, and no link is followed', () => {
    const folder = temporaryFolder();
    const others = ['net.xml', '.hidden.new', '.net.xml.new', 'net.xml.123.new', '.net.xml.0123456789abcdeg.new'];
    for (const name of [...others, ...LEFT]) writeFileSync(join(folder, name), '');
    mkdirSync(join(folder, '.folder.xml.1.new'));
    symlinkSync('net.xml', join(folder, '.link.xml.1.new'));
    expect(removeLeftovers(folder).sort()).toEqual(
      [...LEFT, '.link.xml.1.new'].map((name) => join(folder, name)).sort(),
    );
    expect(readdirSync(folder).sort()).toEqual([...others, '.folder.xml.1.new'].sort());
    expect(lstatSync(join(folder, 'net.xml')).isFile()).toBe(true);
  });

  it.runIf(isRoot)('is left alone when it is of another user', () => {
    const folder = temporaryFolder();
    writeFileSync(join(folder, LEFT[0]!), '');
    chownSync(join(folder, LEFT[0]!), OTHER_USER, 0);
    expect(removeLeftovers(folder)).toEqual([]);
  });

  it('is gone when the daemon is ready, in all of its folders, and the log says so', async () => {
    const test = await TestDaemon.start(new MemoryNetwork().host([address('192.0.2.1')]));
    await test.close();
    const folders = ['config', 'config/autostart', 'config/secrets', 'run/live'].map((name) => join(test.folder, name));
    for (const folder of folders) for (const name of LEFT) writeFileSync(join(folder, name), 'a copy of a key');
    await test.open();
    for (const folder of folders) expect(readdirSync(folder).filter((name) => name.endsWith('.new'))).toEqual([]);
    const told = test.lines.filter(({ text }) => text.includes('interrupted change')).flatMap(({ fields }) => fields);
    expect(JSON.stringify(told).match(/\.new/g)).toHaveLength(folders.length * LEFT.length);
  });

  it('stays, and is logged, when it cannot be removed', async () => {
    const test = await TestDaemon.start(new MemoryNetwork().host([address('192.0.2.1')]));
    await test.close();
    writeFileSync(join(test.configDir, LEFT[0]!), '');
    faults.arm({ edge: /unlinkSync/, nth: 1, code: 'EROFS', lasting: true });
    await test.open();
    faults.lift();
    const told = new RegExp(`stays: .*${LEFT[0]} cannot be removed: read-only file system`);
    expect(test.lines.find(({ level }) => level === 'error')?.text).toMatch(told);
  });

  it('of a secret goes with the secret', () => {
    const folder = join(temporaryFolder(), 'secrets');
    const store = new SecretStore(folder);
    const secret = { uuid: SECRET_UUID, ephemeral: false, private: true, usage: undefined, description: undefined };
    store.define(secret);
    store.setValue(SECRET_UUID, utf8('test'));
    for (const name of ['base64', 'xml'])
      writeFileSync(join(folder, `.${SECRET_UUID}.${name}.${process.pid}.new`), 'x');
    store.undefine(SECRET_UUID);
    expect(readdirSync(folder)).toEqual([]);
  });

  it('does not start a tunnel, and does not keep one from starting', async () => {
    const test = await TestDaemon.start(new MemoryNetwork().host([address('192.0.2.1')]));
    await test.giveSecret();
    await test.client.call('define', { xml: tunnelDocument() });
    await test.close();
    writeFileSync(join(test.runDir, 'live', LEFT[0]!), tunnelDocument());
    await test.open();
    expect((await test.client.call('list', {})).tunnels).toMatchObject([{ name: 'net', active: false }]);
    await test.client.call('start', { name: 'net' });
  });
});

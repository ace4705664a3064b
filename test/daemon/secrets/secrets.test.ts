import { chmodSync, existsSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it, vi } from 'vitest';
import { utf8 } from '../../../src/base/text.ts';
import { parseSecret, type SecretDocument } from '../../../src/config/secret.ts';
import { SecretStore } from '../../../src/daemon/secrets/secrets.ts';
import { SECRET_UUID, temporaryFolder } from '../../support/daemon.ts';

vi.mock('../../../src/config/secret.ts', { spy: true });

const secret: SecretDocument = {
  uuid: SECRET_UUID,
  ephemeral: false,
  private: false,
  description: 'the key of gw2',
  usage: { type: 'ipsec', name: 'sectunnel:net' },
};

const other = '11111111-2222-3333-4444-555555555502';

function store(): { secrets: SecretStore; folder: string } {
  const folder = temporaryFolder();
  return { secrets: new SecretStore(folder), folder };
}

describe('SecretStore', () => {
  it('keeps description and value in files of their own, readable by the owner alone', () => {
    const { secrets, folder } = store();
    secrets.define(secret);
    secrets.setValue(SECRET_UUID, utf8('top secret'));
    for (const file of [`${SECRET_UUID}.xml`, `${SECRET_UUID}.base64`]) {
      expect(statSync(join(folder, file)).mode & 0o777).toBe(0o600);
    }
    expect(readFileSync(join(folder, `${SECRET_UUID}.base64`), 'utf8')).toBe('dG9wIHNlY3JldA==');
    expect(Buffer.from(new SecretStore(folder).value({ by: 'uuid', uuid: SECRET_UUID })).toString()).toBe('top secret');
    expect(Buffer.from(secrets.value({ by: 'usage', usage: 'sectunnel:net' })).toString()).toBe('top secret');
  });

  it('lists secrets without their values', () => {
    const { secrets } = store();
    secrets.define(secret);
    expect(secrets.list()).toEqual([
      {
        uuid: SECRET_UUID,
        source: 'sectunnel',
        usage: 'ipsec sectunnel:net',
        hasValue: false,
        description: 'the key of gw2',
      },
    ]);
    secrets.setValue(SECRET_UUID, utf8('key'));
    expect(JSON.stringify(secrets.list())).not.toContain('a2V5');
    expect(secrets.list()[0]?.hasValue).toBe(true);
  });

  it('refuses a file that others may read, and says how to mend it', () => {
    const { secrets, folder } = store();
    secrets.define(secret);
    secrets.setValue(SECRET_UUID, utf8('key'));
    chmodSync(join(folder, `${SECRET_UUID}.base64`), 0o644);
    expect(() => secrets.value({ by: 'uuid', uuid: SECRET_UUID })).toThrow(/mode 0644.*chmod 600/);
  });

  it.each([
    ['no bytes', 0, /is empty/],
    ['4097 bytes', 4097, /has 4097 bytes; at most 4096/],
  ])('refuses a value of %s, and leaves it to the caller', (_, length, message) => {
    const { secrets, folder } = store();
    secrets.define(secret);
    const value = new Uint8Array(length).fill(7);
    expect(() => secrets.setValue(SECRET_UUID, value)).toThrow(message);
    expect(existsSync(join(folder, `${SECRET_UUID}.base64`))).toBe(false);
    expect(value.every((byte) => byte === 7)).toBe(true);
  });

  it('says what is missing', () => {
    const { secrets, folder } = store();
    expect(() => secrets.value({ by: 'uuid', uuid: SECRET_UUID })).toThrow(/there is no secret 1111/);
    expect(() => secrets.value({ by: 'usage', usage: 'nobody' })).toThrow(/no secret with the usage 'nobody'/);
    secrets.define(secret);
    expect(() => secrets.value({ by: 'uuid', uuid: SECRET_UUID })).toThrow(/has no value.*secret-set-value/);
    expect(() => secrets.setValue(SECRET_UUID, utf8(''))).toThrow(/empty/);
    writeFileSync(join(folder, `${SECRET_UUID}.base64`), '***', { mode: 0o600 });
    expect(() => secrets.value({ by: 'uuid', uuid: SECRET_UUID })).toThrow(/holds no base64 value/);
    expect(() => secrets.undefine('../../etc/passwd')).toThrow(/not a UUID/);
  });

  it('keeps one secret for one usage', () => {
    const { secrets } = store();
    secrets.define(secret);
    secrets.define({ ...secret, description: 'described anew' });
    expect(() => secrets.define({ ...secret, uuid: other })).toThrow(new RegExp(`taken by secret ${SECRET_UUID}`));
  });

  it('lists a secret that cannot be read with the reason, and serves the others', () => {
    const { secrets, folder } = store();
    secrets.define(secret);
    secrets.setValue(SECRET_UUID, utf8('key'));
    writeFileSync(join(folder, `${other}.xml`), '<secret', { mode: 0o600 });
    expect(secrets.list().map(({ uuid }) => uuid)).toEqual([SECRET_UUID, other]);
    expect(secrets.list()[1]?.description).toContain(`${other}.xml:1`);
    expect(Buffer.from(secrets.value({ by: 'usage', usage: 'sectunnel:net' })).toString()).toBe('key');
  });

  it('keeps an ephemeral secret in memory alone', () => {
    const { secrets, folder } = store();
    secrets.define({ ...secret, ephemeral: true });
    secrets.setValue(SECRET_UUID, utf8('key'));
    for (let i = 0; i < 2; i++)
      expect(Buffer.from(secrets.value({ by: 'uuid', uuid: SECRET_UUID })).toString()).toBe('key');
    expect(readdirSync(folder)).toEqual([]);
    expect(() => secrets.define(secret)).toThrow(/ephemeral already/);
    expect(new SecretStore(folder).list()).toEqual([]);
    secrets.undefine(SECRET_UUID);
    expect(secrets.list()).toEqual([]);
  });

  it('finds a usage again and again without reading what stays as it is', () => {
    const { secrets, folder } = store();
    secrets.define(secret);
    secrets.define({ ...secret, uuid: other, usage: { type: 'tls', name: 'another' } });
    secrets.setValue(SECRET_UUID, utf8('key'));
    const found = (usage: string): string => Buffer.from(secrets.value({ by: 'usage', usage })).toString();
    expect(found('sectunnel:net')).toBe('key');
    const parsed = vi.mocked(parseSecret).mock.calls.length;
    expect([found('sectunnel:net'), secrets.has({ by: 'usage', usage: 'nobody' })]).toEqual(['key', false]);
    expect(vi.mocked(parseSecret).mock.calls.length).toBe(parsed);

    // Somebody else writes the file, and the secret has another usage from then on.
    const file = join(folder, `${SECRET_UUID}.xml`);
    const text = readFileSync(file, 'utf8').replace('sectunnel:net', 'a new usage of it');
    writeFileSync(file, text);
    expect(found('a new usage of it')).toBe('key');
    expect(secrets.has({ by: 'usage', usage: 'sectunnel:net' })).toBe(false);
    chmodSync(file, 0o644);
    expect(secrets.has({ by: 'usage', usage: 'a new usage of it' })).toBe(false);
    rmSync(file);
    expect(secrets.list().map(({ uuid }) => uuid)).toEqual([other]);
  });

  it('forgets both files', () => {
    const { secrets, folder } = store();
    secrets.define(secret);
    secrets.setValue(SECRET_UUID, utf8('key'));
    secrets.undefine(SECRET_UUID);
    expect(existsSync(join(folder, `${SECRET_UUID}.xml`))).toBe(false);
    expect(existsSync(join(folder, `${SECRET_UUID}.base64`))).toBe(false);
  });
});

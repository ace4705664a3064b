import { join } from 'node:path';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { type LibvirtSecret, LibvirtSecretError, LibvirtSecrets, usageText } from '../../src/libvirt/secrets.ts';
import { FakeLibvirt, Refusal, u32 } from '../support/fake-libvirt.ts';
import { temporaryFolder } from '../support/folder.ts';
import { timersByHand } from '../support/timers.ts';

const KEY = { uuid: '11111111-2222-3333-4444-555555555501', value: 'a key' };
const BY_USAGE = { uuid: '11111111-2222-3333-4444-555555555502', usageType: 4, usage: 'sectunnel:net', value: 'x' };

const FIRST_WAIT = 5;
const PATIENCE = 2_000;

interface Made {
  readonly secrets: LibvirtSecrets;
  readonly changes: (string | undefined)[];
}

function secretsAt(sockets: readonly string[], timeout?: number): Made {
  const changes: (string | undefined)[] = [];
  const onChanged = (secret: LibvirtSecret | undefined): void => void changes.push(secret?.uuid);
  const secrets = new LibvirtSecrets({ sockets, onChanged, timeout, firstWait: FIRST_WAIT });
  onTestFinished(() => secrets.close());
  return { secrets, changes };
}

async function withSecrets(...given: FakeLibvirt['secrets']): Promise<Made & { fake: FakeLibvirt }> {
  const fake = await FakeLibvirt.start();
  fake.secrets.push(...given.map((secret) => ({ ...secret })));
  return { fake, ...secretsAt([fake.path]) };
}

async function readValue(secrets: LibvirtSecrets, uuid: string): Promise<string> {
  const secret = await secrets.find({ by: 'uuid', uuid });
  return Buffer.from(await secrets.value(secret!)).toString();
}

describe('LibvirtSecrets', () => {
  it('finds secrets by UUID and by usage, and reads their values', async () => {
    const { secrets } = await withSecrets(KEY, BY_USAGE);
    expect(await readValue(secrets, KEY.uuid)).toBe('a key');
    const found = await secrets.find({ by: 'usage', usage: 'sectunnel:net' });
    expect(found).toEqual({ uuid: BY_USAGE.uuid, usageType: 4, usage: 'sectunnel:net' });
    expect(usageText(found!)).toBe('tls sectunnel:net');
    expect(await secrets.find({ by: 'uuid', uuid: KEY.uuid.replace('01', '09') })).toBeUndefined();
    expect(await secrets.find({ by: 'usage', usage: 'nobody' })).toBeUndefined();
  });

  it('connects when it is asked, once, also for questions at the same time', async () => {
    const { fake, secrets } = await withSecrets(KEY);
    expect(fake.sockets.size).toBe(0);
    const values = await Promise.all([1, 2, 3].map(() => readValue(secrets, KEY.uuid)));
    expect(values).toEqual(['a key', 'a key', 'a key']);
    expect([fake.sockets.size, fake.count(1)]).toEqual([1, 1]);
  });

  it('lists secrets in order, and asks for no values', async () => {
    const { fake, secrets } = await withSecrets(BY_USAGE, KEY);
    expect((await secrets.list()).map(({ uuid }) => uuid)).toEqual([KEY.uuid, BY_USAGE.uuid]);
    expect(fake.count(145)).toBe(0);
  });

  it.each([
    ['private', { ...KEY, private: true }, 'private', /is private.*private='no'.*sectunnel secret-define/],
    ['without a value', { uuid: KEY.uuid }, 'no-value', /has no value.*virsh secret-set-value 1111/],
  ] as const)('says what to do with a secret that is %s', async (_what, secret, reason, message) => {
    const { secrets } = await withSecrets(secret);
    const failure = await readValue(secrets, KEY.uuid).catch((error: unknown) => error);
    expect(failure).toBeInstanceOf(LibvirtSecretError);
    expect(failure).toMatchObject({ reason, message: expect.stringMatching(message) });
  });

  it('gives an empty value as it is', async () => {
    const { secrets } = await withSecrets({ ...KEY, value: '' });
    expect(await readValue(secrets, KEY.uuid)).toBe('');
  });

  it('says what to do when libvirt does not let it', async () => {
    const { fake, secrets } = await withSecrets(KEY);
    fake.answer = ({ procedure }) => {
      if (procedure === 145) throw new Refusal(88, 'access denied: read-secure');
      return undefined;
    };
    await expect(readValue(secrets, KEY.uuid)).rejects.toThrow(
      /does not let this daemon read the value of secret 1111.*polkit/,
    );
    fake.authTypes = [1];
    const other = secretsAt([fake.path]).secrets;
    await expect(other.list()).rejects.toThrow(/does not let this daemon read its secrets: .*SASL/);
  });

  it('tries the sockets in their order, and says where it looked', async () => {
    const { fake } = await withSecrets(KEY);
    const absent = join(temporaryFolder(), 'absent');
    expect(await readValue(secretsAt([absent, fake.path]).secrets, KEY.uuid)).toBe('a key');
    const failure = await secretsAt([absent, `${absent}2`])
      .secrets.list()
      .catch((error: unknown) => error);
    expect(failure).toMatchObject({ reason: 'unavailable' });
    expect(String(failure)).toContain(`no daemon listens on ${absent} or ${absent}2`);
  });

  it('does not wait for a daemon that does not answer again and again', async () => {
    const fake = await FakeLibvirt.start();
    const { secrets } = secretsAt([fake.path], PATIENCE);
    timersByHand();
    const called = fake.silence(1);
    const listing = secrets.list();
    await called;
    vi.advanceTimersByTime(PATIENCE);
    await expect(listing).rejects.toThrow(/no answer within 2 s/);
    await Promise.all([1, 2].map(() => expect(secrets.list()).rejects.toThrow(/no answer within 2 s/)));
    expect(fake.calls.length).toBe(1);
    // What comes from the timer is one at a time.
    const calledAgain = fake.silence(1);
    vi.advanceTimersByTime(FIRST_WAIT);
    await calledAgain;
    vi.advanceTimersByTime(PATIENCE - 1);
    await expect(secrets.list()).rejects.toThrow(/no answer within 2 s/);
    expect(fake.calls.length).toBe(2);
  });

  it('does not wait again either for one that answered before', async () => {
    const fake = await FakeLibvirt.start();
    const { secrets } = secretsAt([fake.path], PATIENCE);
    timersByHand();
    await secrets.list();
    const calls = fake.count(287);
    const called = fake.silence(1);
    const listing = secrets.list();
    await called;
    vi.advanceTimersByTime(PATIENCE);
    await expect(listing).rejects.toThrow(/no answer within 2 s/);
    await expect(secrets.list()).rejects.toThrow(/no answer within 2 s/);
    expect(fake.count(287)).toBe(calls + 1);
  });

  it('reports changes of values and definitions', async () => {
    const { fake, secrets, changes } = await withSecrets(KEY);
    await secrets.list();
    fake.setValue(KEY.uuid, 'another');
    await expect.poll(() => changes).toEqual([KEY.uuid]);
    expect(await readValue(secrets, KEY.uuid)).toBe('another');
    fake.publish(382, Buffer.concat([u32(0), Buffer.alloc(16, 0x22), u32(0), u32(0), u32(0), u32(0)]));
    await expect.poll(() => changes).toEqual([KEY.uuid, '22222222-2222-2222-2222-222222222222']);
  });

  it('does without word of changes where libvirt does not let it listen', async () => {
    const { fake, secrets } = await withSecrets(KEY);
    fake.answer = ({ procedure }) => {
      if (procedure === 380) throw new Refusal(3, 'this function is not supported by the connection driver');
      return undefined;
    };
    expect(await readValue(secrets, KEY.uuid)).toBe('a key');
  });

  it('connects again when libvirt was started again, and takes it that anything may have changed', async () => {
    const { fake, secrets, changes } = await withSecrets(KEY);
    await secrets.list();
    await fake.stop();
    await expect.poll(() => secrets.list().catch((error: unknown) => String(error))).toContain('no daemon listens');
    const next = await FakeLibvirt.start(fake.path);
    next.secrets.push({ ...KEY, value: 'a new one' });
    await expect.poll(() => changes).toEqual([undefined]);
    expect(await readValue(secrets, KEY.uuid)).toBe('a new one');
  });

  it('asks nothing any more when it was closed', async () => {
    const { fake, secrets } = await withSecrets(KEY);
    await secrets.list();
    secrets.close();
    await expect.poll(() => fake.sockets.size).toBe(0);
    await expect(secrets.list()).rejects.toThrow(LibvirtSecretError);
    expect(fake.count(1)).toBe(1);
  });
});

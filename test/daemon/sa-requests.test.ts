/** What a user asks of the SAs of a tunnel: whether the peer answers, new keys, a new start. */
import { describe, expect, it } from 'vitest';
import { MemoryNetwork } from '../../src/tun/udp/memory.ts';
import { address, eventually, TestDaemon, tunnelDocument } from '../support/daemon.ts';
import { daemonPair, ikeSas, sectunnel } from '../support/daemon-pair.ts';

describe('probe', () => {
  it('says how long the peer took to answer', async () => {
    const { left } = await daemonPair();
    const [sa] = await ikeSas(left);
    const { peers } = await left.client.call('probe', { name: 'net' });
    expect(peers).toEqual([{ ikeSaId: sa!.id, remote: '192.0.2.2:4500', after: expect.any(Number), detail: '' }]);
    expect(peers[0]!.after).toBeGreaterThanOrEqual(5);
    expect(await sectunnel(left, 'probe', 'net')).toEqual([
      0,
      expect.stringMatching(/^192\.0\.2\.2:4500 answered after \d+\.\d ms \(IKE SA #\d+\)\n$/),
      '',
    ]);
  });

  it('says that the peer does not answer', async () => {
    const { left, cut } = await daemonPair();
    cut();
    expect(await sectunnel(left, 'probe', 'net', '--wait', '1')).toEqual([
      4,
      expect.stringMatching(/^192\.0\.2\.2:4500 does not answer: nothing came of it for 1 s \(IKE SA #\d+\)\n$/),
      '',
    ]);
  });
});

describe('rekey', () => {
  it('replaces all SAs, the IKE SA alone, or those of a child, and says by which', async () => {
    const { left, right } = await daemonPair();
    const facts = async (): Promise<[ike: number, child: number, name: string]> => {
      const [sa, ...others] = await ikeSas(left);
      expect([others.length, sa!.children.length]).toEqual([0, 1]);
      return [sa!.id, sa!.children[0]!.id, sa!.children[0]!.name];
    };
    const first = await facts();
    const [code, out] = await sectunnel(left, 'rekey', 'net');
    expect(code).toBe(0);
    const settled = (): Promise<void> =>
      eventually('one of each', async () => (await ikeSas(left)).flatMap(({ children }) => children).length === 1);
    await settled();
    const second = await facts();
    expect(out).toBe(
      `CHILD SA #${first[1]} ${first[2]} replaced by #${second[1]}\nIKE SA #${first[0]} replaced by #${second[0]}\n`,
    );
    expect(second[0]).not.toBe(first[0]);

    expect((await sectunnel(left, 'rekey', 'net', '--ike'))[1]).toMatch(/^IKE SA #\d+ replaced by #\d+\n$/);
    const third = await facts();
    expect([third[0] === second[0], third[1] === second[1]]).toEqual([false, true]);

    const { sas } = await left.client.call('rekey', { name: 'net', child: first[2] });
    await settled();
    const fourth = await facts();
    expect(sas).toEqual([{ kind: 'child', id: third[1], name: first[2], replacedBy: fourth[1], detail: '' }]);
    expect(fourth[0]).toBe(third[0]);
    expect((await ikeSas(right)).map(({ children }) => children.length)).toEqual([1]);
  });

  it('says which SA was not replaced, and why', async () => {
    const { left, cut } = await daemonPair();
    cut();
    const asked = sectunnel(left, 'rekey', 'net');
    await eventually('the request to be out', async () => (await ikeSas(left))[0]?.unanswered !== undefined);
    await left.client.call('reset', { name: 'net' });
    expect(await asked).toEqual([
      4,
      expect.stringMatching(
        /^CHILD SA #\d+ \S+ was not replaced: the CHILD SA is gone \(ike-down\)\nIKE SA #\d+ was not replaced: the IKE SA is gone \(requested\): it was closed\n$/,
      ),
      '',
    ]);
    expect(await sectunnel(left, 'rekey', 'net')).toEqual([1, '', "error: tunnel 'net' has no such SA that is up\n"]);
  });
});

describe('reauth', () => {
  it('replaces the IKE SA and its CHILD SAs by new ones, and says by which', async () => {
    const { left, right } = await daemonPair();
    const [before] = await ikeSas(left);
    const [code, out, err] = await sectunnel(left, 'reauth', 'net');
    const [after, ...others] = await ikeSas(left);
    expect([code, out, err]).toEqual([0, `IKE SA #${before!.id} replaced by #${after!.id}\n`, '']);
    expect([others.length, after!.id === before!.id, after!.children.length]).toEqual([0, false, 1]);
    expect(after!.children[0]!.spiIn).not.toBe(before!.children[0]!.spiIn);
    await eventually('the peer to have one', async () => (await ikeSas(right)).length === 1);
    expect((await ikeSas(right))[0]!.spiInitiator).toBe(after!.spiInitiator);
  });

  it('says why an IKE SA was not replaced, and leaves it up', async () => {
    const { left, right } = await daemonPair();
    const before = await ikeSas(left);
    await right.giveSecret('another pre-shared key, as long as it has to be');
    const { sas } = await left.client.call('reauth', { name: 'net' });
    expect(sas).toEqual([
      {
        kind: 'ike',
        id: before[0]!.id,
        name: 'net',
        detail: expect.stringMatching(/^AUTHENTICATION_FAILED: /),
      },
    ]);
    expect((await ikeSas(left)).map(({ id }) => id)).toEqual(before.map(({ id }) => id));
    const [code, out] = await sectunnel(left, 'reauth', 'net');
    expect([code, out]).toEqual([4, expect.stringMatching(/^IKE SA #\d+ was not replaced: AUTHENTICATION_FAILED/)]);
  });
});

it('reset ends the SAs and makes new ones, on the same device', async () => {
  const { left, right } = await daemonPair();
  const before = (await ikeSas(left))[0]!.id;
  const devices = left.devices.size;
  expect(await sectunnel(left, 'reset', 'net')).toEqual([0, 'Tunnel net reset\n', '']);
  await eventually('new SAs', async () =>
    (await ikeSas(left)).some(({ id, children }) => id !== before && children.length === 1),
  );
  expect((await ikeSas(left)).map(({ id }) => id)).not.toContain(before);
  expect(left.devices.size).toBe(devices);
  await eventually('the peer to have one', async () => (await ikeSas(right)).length === 1);
});

it.each(['probe', 'rekey', 'reauth', 'reset'])(
  '%s is refused where the tunnel does not run, or where there is none',
  async (verb) => {
    const daemon = await TestDaemon.start(new MemoryNetwork().host([address('192.0.2.1')]));
    await daemon.client.call('define', { xml: tunnelDocument({}) });
    expect(await sectunnel(daemon, verb, 'net')).toEqual([
      1,
      '',
      "error: tunnel net is not active; start it with 'sectunnel start net'\n",
    ]);
    expect((await sectunnel(daemon, verb, 'other'))[2]).toMatch(/^error: .*other/);
  },
);

it.each([
  [['probe', 'net', '--wait', '0'], 'expected: seconds, 1 to 3600'],
  [['rekey', 'net', '--child'], '--child'],
])('%j is a wrong command line', async (words, wanted) => {
  const daemon = await TestDaemon.start(new MemoryNetwork().host([address('192.0.2.1')]));
  const [code, , err] = await sectunnel(daemon, ...words);
  expect([code, err]).toEqual([2, expect.stringContaining(wanted)]);
});

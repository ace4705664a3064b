/** The local address or the route to a peer goes, changes and returns under a tunnel that is up. */
import { afterEach, expect, it } from 'vitest';
import { waitFor } from '../support/lab/process.ts';
import { describeInterop } from '../support/lab/requirements.ts';
import { useLab } from '../support/lab/use-lab.ts';
import { buildGateways, documents, type Entry, type Gateways, INNER, knock, NAME, resetBoth } from './gateways.ts';

const ENTRIES: readonly Entry[] = [{ name: 'net', from: INNER[4].left, to: INNER[4].right }];
const WALL = 'add table inet wall; add chain inet wall out { type filter hook output priority 0; }';
/** Milliseconds, with the programs that look. */
const AT_ONCE = 3_000;

describeInterop('the way to the peer', ['namespaces', 'nftables', 'build'], () => {
  let gateways: Gateways;

  useLab(async (lab) => {
    gateways = await buildGateways(lab);
    const { left } = gateways;
    // Where the first address of a network goes, the others stay.
    await left.exec(['sh', '-c', 'echo 1 >/proc/sys/net/ipv4/conf/eth0/promote_secondaries']);
    await left.ip(['addr add 192.0.2.9/24 dev eth0']);
  });
  afterEach(() => resetBoth(gateways));

  const start = async (local: string): Promise<void> => {
    const { ours, theirs } = gateways;
    const { left, right } = documents(ENTRIES, { leftAddress: 'any' });
    await theirs.defineDocument(NAME, right);
    await theirs.command(['start', NAME]);
    await ours.defineDocument(NAME, left.replace("<local address='192.0.2.1'", `<local address='${local}'`));
    await ours.command(['start', NAME]);
    await ours.up(NAME);
  };

  const established = async (from: string): Promise<number> =>
    await waitFor(
      `an SA from ${from}`,
      async () =>
        (await gateways.ours.tunnel(NAME)).ikeSas.find(
          ({ local, state }) => local.startsWith(`${from}:`) && state === 'established',
        )?.id,
      AT_ONCE,
    );

  it('is taken from another address at once when the one before is gone, where none is prescribed', async () => {
    const { left, ours } = gateways;
    await start('any');
    await established('192.0.2.1');
    await left.ip(['addr del 192.0.2.1/24 dev eth0']);
    await established('192.0.2.9');
    expect(await knock(left, INNER[4].gateway, INNER[4].far)).toBe(3);
    expect(ours.log()).toMatch(
      /"level":40.*"reason":"path-lost".*the local address 192\.0\.2\.1 is gone; a new IKE SA is negotiated from 192\.0\.2\.9/,
    );
    await left.ip(['addr add 192.0.2.1/24 dev eth0']);
  });

  it('that is gone is shown with what to look at, and used again when it is back', async () => {
    const { left, ours } = gateways;
    await start('192.0.2.9');
    const before = await established('192.0.2.9');
    await left.ip(['addr del 192.0.2.9/24 dev eth0']);
    const texts = await waitFor(
      'the status to say so',
      async () => {
        const { degraded } = await ours.tunnel(NAME);
        return degraded.length > 0 ? degraded : undefined;
      },
      AT_ONCE,
    );
    expect(texts).toEqual([
      'this host has no route to the peer 192.0.2.2 from 192.0.2.9; see: ip route get 192.0.2.2 from 192.0.2.9',
    ]);
    expect((await ours.command(['list'])).stdout).toMatch(/active \(up, degraded\)/);
    await left.ip(['addr add 192.0.2.9/24 dev eth0']);
    await waitFor(
      'the status to say no more of it',
      async () => ((await ours.tunnel(NAME)).degraded.length === 0 ? true : undefined),
      AT_ONCE,
    );
    expect(await knock(left, INNER[4].gateway, INNER[4].far)).toBe(3);
    expect(await established('192.0.2.9')).toBe(before);
  });

  it('that comes after the tunnel has it tried at once', async () => {
    const { left, ours, theirs } = gateways;
    await left.ip(['link set eth0 down']);
    const { left: document, right } = documents(ENTRIES, { leftAddress: 'any' });
    await theirs.defineDocument(NAME, right);
    await theirs.command(['start', NAME]);
    await ours.defineDocument(NAME, document.replace("<local address='192.0.2.1'", "<local address='any'"));
    await ours.command(['start', NAME]);
    await waitFor('an attempt to fail', async () => (await ours.tunnel(NAME)).lastFailure);
    // The pauses between attempts have become long.
    await new Promise((resolve) => setTimeout(resolve, 8_000));
    await left.ip(['link set eth0 up']);
    const began = performance.now();
    await ours.up(NAME);
    expect(performance.now() - began).toBeLessThan(AT_ONCE);
  });

  it.each([
    [
      'a firewall of this host',
      ['nft', `${WALL}; add rule inet wall out udp dport 4500 drop`],
      ['nft', 'delete', 'table', 'inet', 'wall'],
      /refuses datagrams to 192\.0\.2\.2:4500 \(EPERM\).*nft list ruleset/,
    ],
    [
      'a route that prohibits',
      ['ip', 'route', 'add', 'prohibit', '192.0.2.2'],
      ['ip', 'route', 'del', 'prohibit', '192.0.2.2'],
      /no route to the peer 192\.0\.2\.2/,
    ],
  ])('of a tunnel that is up is known by its first packet that %s stops', async (_, begin, end, text) => {
    const { left, ours } = gateways;
    await start('any');
    await left.exec(begin);
    try {
      const traffic = left.exec(['ping', '-q', '-i0.2', '-c10', '-W1', '-I', INNER[4].gateway, INNER[4].far], {
        check: false,
      });
      const degraded = async (): Promise<readonly string[]> => (await ours.tunnel(NAME)).degraded;
      await waitFor('the status to say so', async () => ((await degraded()).length > 0 ? true : undefined), AT_ONCE);
      expect(await degraded()).toEqual(expect.arrayContaining([expect.stringMatching(text)]));
      expect(ours.log()).toMatch(text);
      await traffic;
    } finally {
      await left.exec(end);
    }
    expect(await knock(left, INNER[4].gateway, INNER[4].far)).toBe(3);
    await waitFor(
      'the status to be well',
      async () => ((await ours.tunnel(NAME)).degraded.length === 0 ? true : undefined),
      10_000,
    );
  });
});

/** Milliseconds: ARP takes three seconds to find that no host has an address. */
const KNOWN = 1_500;
const RESOLVED = 6_000;

describeInterop('a peer that is not reached', ['namespaces', 'nftables', 'build'], () => {
  let gateways: Gateways;

  useLab(async (lab) => {
    gateways = await buildGateways(lab);
    await gateways.theirs.stop();
  });
  afterEach(async () => {
    await gateways.ours.reset();
    await gateways.left.exec(['nft', 'delete', 'table', 'inet', 'wall'], { check: false });
  });

  it.each([
    [
      'no IKE daemon listens',
      '192.0.2.2',
      undefined,
      KNOWN,
      /^UDP port 500 of 192\.0\.2\.2 is closed \(ECONNREFUSED\)/,
    ],
    [
      'no host has its address',
      '192.0.2.77',
      undefined,
      RESOLVED,
      /^192\.0\.2\.77:500 is not reached \(EHOSTUNREACH\)/,
    ],
    [
      'a firewall of this host is in between',
      '192.0.2.2',
      `${WALL}; add rule inet wall out udp dport 500 drop`,
      KNOWN,
      /^the system refuses datagrams to 192\.0\.2\.2:500 \(EPERM\).*nft list ruleset/,
    ],
  ])('as %s is shown at once, with what to look at', async (_, peer, wall, limit, text) => {
    const { left, ours } = gateways;
    if (wall !== undefined) await left.exec(['nft', wall]);
    const document = documents(ENTRIES).left.replace("<remote address='192.0.2.2'", `<remote address='${peer}'`);
    await ours.defineDocument(NAME, document);
    await ours.command(['start', NAME]);
    const found = await waitFor(
      'the status to say so',
      async () => {
        const { degraded } = await ours.tunnel(NAME);
        return degraded.length > 0 ? degraded : undefined;
      },
      limit,
    );
    expect(found).toEqual([expect.stringMatching(text)]);
    expect((await ours.command(['list'])).stdout).toMatch(/active \(connecting, degraded\)/);
    expect(
      ours
        .log()
        .split('\n')
        .filter((line) => line.includes(found[0]!)),
    ).toHaveLength(1);
  });

  it('as nothing comes back is shown with the number of attempts, the ports and the way', async () => {
    const { right, ours, lab } = gateways;
    await right.exec([
      'nft',
      'add table inet wall; add chain inet wall in { type filter hook input priority 0; policy drop; }',
    ]);
    lab.defer(async () => void (await right.exec(['nft', 'delete', 'table', 'inet', 'wall'], { check: false })));
    await ours.defineDocument(NAME, documents(ENTRIES).left);
    await ours.command(['start', NAME]);
    const shown = await waitFor(
      'the status to say so',
      async () => {
        const { stdout } = await ours.command(['status', NAME]);
        return stdout.includes('tcpdump') ? stdout : undefined;
      },
      15_000,
    );
    expect(shown).toMatch(/no response yet; the last request was sent \d times, no response for 1\ds/);
    expect(shown).toContain(
      'degraded: 192.0.2.2:500 does not answer. Firewalls must pass UDP from 192.0.2.1:500 to 192.0.2.2:500 and back; to see where it stops, run at both ends: tcpdump -ni any udp port 500',
    );
    expect((await ours.command(['list'])).stdout).toMatch(/ gate +active \(connecting, degraded\)/);
    expect(ours.log()).toContain('192.0.2.2:500 does not answer');
    await right.exec(['nft', 'delete', 'table', 'inet', 'wall']);
  });
});

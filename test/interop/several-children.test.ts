/**
 * strongSwan as gateways are that take one pair of ranges a CHILD SA: it has two children, our document has one `<sp>` with two
 * ranges (RFC 7296 §2.9). And default proposals against those of strongSwan, and against a peer that demands a group
 * ("PFS"), past two lifetimes.
 */
import { describe, expect, it } from 'vitest';
import type { Lab } from '../support/lab/lab.ts';
import { cable, type Namespace } from '../support/lab/namespace.ts';
import { Ours, type OursSettings } from '../support/lab/ours.ts';
import { waitFor } from '../support/lab/process.ts';
import { describeInterop } from '../support/lab/requirements.ts';
import { StrongSwan } from '../support/lab/strongswan.ts';
import { burst, ping, startEcho } from '../support/lab/traffic.ts';
import { useLab } from '../support/lab/use-lab.ts';

const NAME = 'parts';
const KEY = '11111111-2222-3333-4444-555555555511';
const PSK = 'interop: a key of 32 characters!';
const NEAR = '10.1.0.1';
const FAR = ['10.2.0.1', '10.3.0.1'] as const;
const ECHO_PORT = 7007;

interface PeerWords {
  /** Ranges of the peer, each with a child of its own. */
  readonly ranges: readonly string[];
  readonly ike: string;
  readonly esp: string;
}

function swanctlConf({ ranges, ike, esp }: PeerWords): string {
  const children = ranges.map(
    (range, i) => `c${i} {
      local_ts = ${range}
      remote_ts = 10.1.0.0/24
      esp_proposals = ${esp}
      rekey_time = 0
    }`,
  );
  return `connections {
  t {
    version = 2
    local_addrs = 192.0.2.2
    remote_addrs = 192.0.2.1
    encap = yes
    proposals = ${ike}
    rekey_time = 0
    local {
      auth = psk
      id = fqdn:right.example
    }
    remote {
      auth = psk
      id = fqdn:left.example
    }
    children {
      ${children.join('\n      ')}
    }
  }
}
secrets {
  ike-1 {
    secret = "${PSK}"
  }
}
`;
}

/** With default proposals, but for what is given. */
function document(start: OursSettings['start'], ranges: readonly string[], esp: string): string {
  const far = ranges.map((range) => `<dst_range address='${range.split('/')[0]}' prefixlen='24'/>`);
  return `<sectunnel type='ipsec'>
  <name>${NAME}</name>
  <sa>
    <local address='192.0.2.1'><id type='fqdn'>left.example</id></local>
    <remote address='192.0.2.2'><id type='fqdn'>right.example</id></remote>
    <auth type='psk'><secret uuid='${KEY}'/></auth>
    <ike start='${start}'/>
    <esp>${esp}</esp>
  </sa>
  <sp name='lan'>
    <src_range address='10.1.0.0' prefixlen='24'/>
    ${far.join('')}
    <upperspec protocol='any'/>
    <policy direction='both' action='ipsec'><rule protocol='esp' mode='tunnel' level='require'/></policy>
  </sp>
</sectunnel>
`;
}

const RANGES = ['10.2.0.0/24', '10.3.0.0/24'];
const ONE_SUITE = { ike: 'aes128gcm16-prfsha256-x25519', esp: 'aes128gcm16' };

describeInterop('a peer with a child for each range', ['namespaces', 'strongswan', 'nftables', 'build'], () => {
  let left: Namespace;
  let right: Namespace;
  let peer: StrongSwan;
  let ours: Ours;

  useLab(async (lab: Lab) => {
    left = await lab.namespace('left');
    right = await lab.namespace('right');
    await cable(
      { namespace: left, device: 'eth0', addresses: ['192.0.2.1/24'] },
      { namespace: right, device: 'eth0', addresses: ['192.0.2.2/24'] },
    );
    await left.ip([`addr add ${NEAR}/32 dev lo`]);
    await right.ip(FAR.map((address) => `addr add ${address}/32 dev lo`));
    await startEcho(lab, right, FAR[0], ECHO_PORT);
    peer = await StrongSwan.start(lab, right);
    ours = await Ours.start(lab, left);
    await ours.secret(PSK, KEY);
  });

  async function begin(start: OursSettings['start'], words: PeerWords, esp = ''): Promise<void> {
    await ours.reset();
    await peer.reset();
    await peer.loadConfiguration(swanctlConf(words));
    await ours.defineDocument(NAME, document(start, words.ranges.length > 1 ? RANGES : RANGES.slice(0, 1), esp));
    await ours.command(['start', NAME]);
  }

  const reach = (): Promise<number[]> =>
    Promise.all(FAR.map((destination) => ping(left, { source: NEAR, destination, count: 3 })));

  const installed = async (): Promise<string[]> =>
    (await peer.sas()).flatMap(({ children }) => children.filter((child) => child.installed).map(({ spiIn }) => spiIn));

  /** The peer's ranges that our SAs are for. */
  async function parts(): Promise<string[]> {
    const { ikeSas } = await ours.tunnel(NAME);
    const children = ikeSas.flatMap((ike) => ike.children);
    return [...new Set(children.flatMap(({ remoteSelectors }) => remoteSelectors))].sort();
  }

  const waitForParts = (wanted: readonly string[]): Promise<true> =>
    waitFor(`SAs for ${wanted.join(', ')}`, async () => ((await parts()).join() === wanted.join() ? true : undefined));

  describe.each(['trap', 'initiate', 'respond'] as const)('with start=%s', (start) => {
    it('gets a CHILD SA for each, which carry over rekeyings by either', async () => {
      await begin(start, { ranges: RANGES, ...ONE_SUITE });
      if (start === 'respond') for (const child of ['c0', 'c1']) await peer.initiate(child);
      if (start === 'initiate') await waitForParts(RANGES);
      expect(await reach()).toEqual([3, 3]);
      await waitForParts(RANGES);
      for (const child of ['c0', 'c1']) {
        const before = new Set(await installed());
        await peer.rekeyChild(child);
        expect(await reach()).toEqual([3, 3]);
        // swanctl returns when it has begun. What is being replaced is no longer called installed.
        await waitFor('the end of the rekeying', async () => {
          const now = await installed();
          return now.length === RANGES.length && now.some((spi) => !before.has(spi)) ? true : undefined;
        });
      }
      const { drops, ikeSas } = await ours.tunnel(NAME);
      expect(drops['narrowed-by-peer'] ?? 0).toBe(0);
      expect(ikeSas.flatMap(({ children }) => children.flatMap(({ narrowedAway }) => narrowedAway))).toEqual([]);
    });

    it('and deletes one: what needs it has it made again', async () => {
      await peer.terminateChild('c1');
      if (start === 'respond') {
        // Left to the peer, as the document says.
        await waitForParts(RANGES.slice(0, 1));
        expect((await reach())[0]).toBe(3);
        return;
      }
      expect(await reach()).toEqual([3, 3]);
      await waitForParts(RANGES);
    });
  });

  it('sends on a CHILD SA before its answer is here: that waits, and nothing of it is lost (RFC 7296 §2.8)', async () => {
    await begin('trap', { ranges: RANGES, ...ONE_SUITE });
    expect(await ping(left, { source: NEAR, destination: FAR[0], count: 1 })).toBe(1);
    const { counters } = await ours.status();
    // IKE alone has four zeros where ESP has its SPI (RFC 3948 §2.2). Our request is sent again after a second.
    const rule = 'add rule ip early input udp sport 4500 @th,64,32 0 drop';
    const chain = 'add chain ip early input { type filter hook input priority 0; }';
    await left.exec(['nft', ['add table ip early', chain, rule].join('; ')]);
    const ours1 = ping(left, { source: NEAR, destination: FAR[1], count: 1 });
    await waitFor('the CHILD SA of the peer', async () =>
      (await peer.sas())[0]?.children.filter(({ installed }) => installed).length === 2 ? true : undefined,
    );
    const theirs = ping(right, { source: FAR[1], destination: NEAR, count: 5 });
    await left.exec(['nft', 'delete table ip early']);
    expect([await ours1, await theirs]).toEqual([1, 5]);
    const after = (await ours.status()).counters;
    expect(after['esp-unknown-spi'] ?? 0).toBe(counters['esp-unknown-spi'] ?? 0);
  });

  /** Traffic over more than two lifetimes; the peer rekeys nothing. */
  async function pastTwoLifetimes(): Promise<void> {
    const sent = await burst(left, {
      source: NEAR,
      destination: FAR[0],
      port: ECHO_PORT,
      count: 900,
      pause: 20,
      size: 100,
    });
    expect(sent).toMatchObject({ received: sent.sent, damaged: 0 });
  }
  const SHORT = "<lifetime soft='5' hard='9' jitter='0'/>";

  it.each([
    ['its own defaults', { ike: 'default', esp: 'default' }],
    ['a group that it demands', { ike: 'default', esp: 'aes256gcm16-x25519,aes256-sha256-x25519' }],
    ['another group than that of the IKE SA', { ike: 'default', esp: 'aes256gcm16-ecp384' }],
  ] as const)('default proposals and %s lose nothing over two lifetimes, on one IKE SA', async (_, words) => {
    await begin('initiate', { ranges: RANGES.slice(0, 1), ...words }, SHORT);
    const { ikeSas } = await ours.up(NAME);
    await pastTwoLifetimes();
    const after = (await ours.tunnel(NAME)).ikeSas.filter(({ state }) => state === 'established');
    expect(after.map(({ id }) => id)).toEqual(ikeSas.map(({ id }) => id));
    expect(after[0]!.children.at(-1)!.id).toBeGreaterThan(ikeSas[0]!.children[0]!.id);
  });

  it('a group on one side alone makes a new IKE SA before the CHILD SA is over, and the log says why', async () => {
    const mine = "<proposal encryption='aes256gcm16' esn='no'/>";
    await begin('initiate', { ranges: RANGES.slice(0, 1), ike: 'default', esp: 'aes256gcm16-x25519' }, mine + SHORT);
    const { ikeSas } = await ours.up(NAME);
    await pastTwoLifetimes();
    const after = (await ours.tunnel(NAME)).ikeSas.filter(({ state }) => state === 'established');
    expect(after).toHaveLength(1);
    expect(after[0]!.id).not.toBe(ikeSas[0]!.id);
    expect(ours.log()).toContain('a peer that accepted the same there may refuse it now without a group');
  });
});

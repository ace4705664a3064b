/**
 * The messages that the fence is written with against nft(8): each change of a fence in one namespace is made in another by
 * nft, with the same lines. Afterwards both have the same content, and nft prints both alike.
 */
import { isDeepStrictEqual } from 'node:util';
import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { type AddressRange, type IpFamily, parseAddress, prefixRange } from '../../src/base/address.ts';
import { type ObjectContent, type TableContent, TableReader } from '../../src/hostnet/fence/content.ts';
import type { BridgeFence, FenceEntry, FencePart, TunnelFence } from '../../src/hostnet/fence/fence.ts';
import { LinuxFence } from '../../src/hostnet/fence/linux.ts';
import { FENCE_TABLE } from '../../src/hostnet/fence/nft-words.ts';
import { ContentHash } from '../../src/hostnet/netlink/nftables.ts';
import { NFTA_DATA } from '../../src/hostnet/netlink/nftables-layout.ts';
import { NftChannel } from '../../src/hostnet/nft/channel.ts';
import type { PolicyEntry } from '../../src/policy/database.ts';
import { withinNamespace } from '../../src/sys/netns.ts';
import type { Namespace } from '../support/lab/namespace.ts';
import { describeInterop } from '../support/lab/requirements.ts';
import { useLab } from '../support/lab/use-lab.ts';
import { Judge } from './differential/judge.ts';
import { Dice } from './differential/packets.ts';
import { policy } from './differential/policies.ts';

const COMMIT = NftChannel.prototype.commit;
const SEED = Number(process.env.SECTUNNEL_FENCE_SEED ?? 1);
const PARTS = Number(process.env.SECTUNNEL_FENCE_PARTS ?? 60);
const OWN = { peer: parseAddress('192.0.2.2'), ports: [500, 4500], peerPorts: [500, 4500] };
const POLICIES: Readonly<Record<string, readonly PolicyEntry[]>> = {
  everything: policy({}),
  'ports of either side': policy({ upper: 'udp 7007' }, { upper: 'tcp', localUpper: 'tcp 4000-5000' }),
  'types of ICMP that pass, and others': policy(
    { upper: 'icmp type 8', families: [4], action: 'bypass' },
    { upper: 'icmpv6 type 128', families: [6], action: 'bypass' },
    { upper: 'icmp type 3', families: [4] },
    {},
  ),
  'exceptions and what is discarded': policy(
    { upper: 'udp 4444', action: 'bypass' },
    { upper: 'udp 53', action: 'discard' },
    { upper: '200', action: 'bypass' },
    { upper: 'ah', action: 'bypass' },
    { upper: 'esp' },
    { upper: 'udp', remote: ['10.2.0.10/32', 'fd02::a/128'] },
  ),
};

function range(text: string): AddressRange {
  const [address, length] = text.split('/');
  return prefixRange(parseAddress(address!)!, Number(length));
}

function entry(local: string, remote: string, change: Partial<FenceEntry> = {}): FenceEntry {
  return { action: 'guard', local: range(local), remote: range(remote), ...change };
}

const tunnel = (change: Partial<TunnelFence> = {}): TunnelFence => ({
  kind: 'tunnel',
  beside: [],
  device: 'stun0',
  own: OWN,
  outbound: [entry('10.1.0.0/24', '10.2.0.0/24'), entry('fd01::/64', 'fd02::/64')],
  inbound: [entry('10.1.0.0/24', '10.2.0.0/24'), entry('fd01::/64', 'fd02::/64')],
  anySource: [entry('0.0.0.0/0', '10.2.0.0/24'), entry('::/0', 'fd02::/64')],
  marked: [],
  ...change,
});

const bridge = (change: Partial<BridgeFence> = {}): BridgeFence => ({
  kind: 'bridge',
  bridge: 'virbr9',
  devices: ['stun0', 'stun1'],
  closed: true,
  dns: false,
  ...change,
});

/** A part with random addresses, prefixes, ranges, protocols, ports and types. */
function randomTunnel(dice: Dice): TunnelFence {
  const families: readonly IpFamily[] = dice.pick([[4], [6], [4, 6]]);
  const count = dice.chance(10) ? 20 + dice.below(100) : 1 + dice.below(6);
  const entries = (): FenceEntry[] => Array.from({ length: count }, () => randomEntry(dice, dice.pick(families)));
  return tunnel({
    ...(dice.chance(15) ? { vrf: 'blue' } : {}),
    device: `stun${dice.below(5)}`,
    beside: Array.from({ length: dice.pick([0, 0, 1, 3, 12]) }, (_, at) => `stun-b${at}`),
    own: dice.chance(20)
      ? { ...OWN, peer: undefined }
      : dice.chance(20)
        ? { ...OWN, peer: parseAddress('fd09::2') }
        : OWN,
    outbound: entries(),
    inbound: entries(),
    anySource: dice.chance(50) ? entries() : [],
    marked: dice.chance(30) ? entries() : [],
  });
}

function randomEntry(dice: Dice, family: IpFamily): FenceEntry {
  const protocol = dice.pick([undefined, undefined, 1, 6, 17, 50, 51, 58, 200]);
  const span = (): { start: number; end: number } => {
    const start = dice.below(65_000);
    return { start, end: dice.chance(50) ? start : start + dice.below(500) };
  };
  const ports = protocol === 6 || protocol === 17;
  return {
    action: dice.pick(['guard', 'guard', 'pass', 'discard'] as const),
    local: randomRange(dice, family),
    remote: randomRange(dice, family),
    protocol,
    ...(ports && dice.chance(60) ? { localPorts: span() } : {}),
    ...(ports && dice.chance(60) ? { remotePorts: span() } : {}),
    ...((protocol === 1 || protocol === 58) && dice.chance(70) ? { icmp: span() } : {}),
  };
}

/** Prefixes of any length, all of a family, and ranges that are no prefix. */
function randomRange(dice: Dice, family: IpFamily): AddressRange {
  const bits = family === 4 ? 32 : 128;
  let value = 0n;
  for (let at = 0; at < bits; at += 32) value = (value << 32n) | BigInt(dice.word());
  const found = prefixRange({ family, value }, dice.chance(10) ? 0 : 1 + dice.below(bits));
  if (!dice.chance(20)) return found;
  const size = found.end.value - found.start.value;
  return {
    start: { family, value: found.start.value + size / 5n },
    end: { family, value: found.end.value - size / 7n },
  };
}

describeInterop('the fence has what nft(8) makes of its lines', ['namespaces', 'nftables'], () => {
  let [ours, theirs]: [Namespace?, Namespace?] = [];
  let fence: LinuxFence;
  let lines: string[] = [];

  useLab(async (lab) => {
    ours = await lab.namespace('ours');
    theirs = await lab.namespace('theirs');
  });
  beforeEach(async () => {
    vi.spyOn(NftChannel.prototype, 'commit').mockImplementation(async function (this: NftChannel, text) {
      await COMMIT.call(this, text);
      lines.push(text);
    });
    fence = new LinuxFence({ start: within(ours!) });
    await fence.clear();
    lines = [];
    await theirs!.exec(['nft', 'flush', 'ruleset']);
  });
  afterEach(async () => {
    vi.restoreAllMocks();
    await fence.close();
  });

  const within =
    ({ name }: Namespace) =>
    <T>(work: () => T): T =>
      withinNamespace(name, work);

  async function set(key: string, part: FencePart | undefined): Promise<void> {
    await fence.set(key, part);
    await expectAlike();
  }

  /** Has nft do what was done since the last time, a batch at a time. */
  async function expectAlike(): Promise<void> {
    for (const text of lines) await theirs!.exec(['nft', '-f', '-'], { input: `${text}\n` });
    lines = [];
    const [own, other] = await Promise.all([ours!, theirs!].map(contentOf));
    const names = new Set([...own!.keys(), ...other!.keys()]);
    const different = [...names].filter((name) => !isAlike(own!.get(name), other!.get(name)));
    expect(different).toEqual([]);
    const [printed, printedThere] = await Promise.all([ours!, theirs!].map(listing));
    expect(printed).toEqual(printedThere);
  }

  async function contentOf(namespace: Namespace): Promise<TableContent> {
    const channel = new NftChannel(within(namespace));
    try {
      return await new TableReader(FENCE_TABLE, channel).read();
    } finally {
      channel.close();
    }
  }

  async function listing(namespace: Namespace): Promise<unknown> {
    const { stdout } = await namespace.exec(['nft', '-j', 'list', 'ruleset']);
    return comparable(JSON.parse(stdout));
  }

  it.each(Object.entries(POLICIES))('where %s is in the policy', async (_, entries) => {
    for (const peer of [parseAddress('192.0.2.2'), parseAddress('fd09::2'), undefined]) {
      await set('tunnel:t', new Judge(entries, { ...OWN, peer }, 'stun0').fence);
    }
    await set('tunnel:t', undefined);
  });

  it('for tunnels beside one another, whose addresses overlap or not, and what is left as they go', async () => {
    await set('tunnel:a', tunnel());
    await set(
      'tunnel:all',
      tunnel({ outbound: [entry('0.0.0.0/0', '0.0.0.0/0'), entry('::/0', '::/0')], device: 'stun1' }),
    );
    await set('tunnel:half', tunnel({ outbound: [entry('10.1.0.0/24', '128.0.0.0/1')], beside: ['stun0'] }));
    await set('tunnel:beside', tunnel({ beside: Array.from({ length: 40 }, (_, at) => `stun-o${at}`) }));
    for (const key of ['all', 'a', 'beside', 'half']) await set(`tunnel:${key}`, undefined);
    expect(await listing(ours!)).toEqual(await listing(theirs!));
  });

  it('for tunnels in VRFs', async () => {
    await set('tunnel:a', tunnel());
    await set('tunnel:blue', tunnel({ vrf: 'blue', device: 'stun-blue' }));
    await set('tunnel:red', tunnel({ vrf: 'red', device: 'stun-red' }));
    await set('tunnel:red', tunnel({ vrf: 'blue', device: 'stun-red', outbound: [entry('10.1.0.0/24', '0.0.0.0/0')] }));
    for (const key of ['blue', 'a', 'red']) await set(`tunnel:${key}`, undefined);
  });

  it('for bridges, closed and open, and for what is not translated', async () => {
    await set('tunnel:a', tunnel());
    for (const closed of [true, false]) {
      for (const dns of [true, false]) await set('bridge:lan', bridge({ closed, dns }));
    }
    await set('network:lan', { kind: 'untranslated', bridge: 'virbr9', device: 'stun0' });
    await set('network:other', { kind: 'untranslated', bridge: 'virbr8', device: 'stun0' });
    for (const key of ['network:lan', 'bridge:lan', 'network:other', 'tunnel:a']) await set(key, undefined);
  });

  it('for very many addresses', async () => {
    const remote = (at: number): string => `10.${2 + (at >> 8)}.${at & 0xff}.128/25`;
    const many = (count: number, change: Partial<FenceEntry> = {}): FenceEntry[] =>
      Array.from({ length: count }, (_, at) => entry('10.1.0.0/24', remote(at), change));
    await set('tunnel:few', tunnel({ outbound: many(60), inbound: many(60), anySource: [] }));
    await set('tunnel:many', tunnel({ outbound: many(10_000), inbound: many(10_000), anySource: [] }));
    await set('tunnel:many', tunnel({ outbound: many(700), inbound: [], anySource: many(700) }));
    await set('tunnel:many', tunnel({ outbound: many(200, { protocol: 6 }), inbound: many(20, { protocol: 17 }) }));
    await set('tunnel:last', tunnel({ outbound: [...many(12), entry('10.1.0.0/24', '255.255.255.0/24')] }));
    for (const key of ['many', 'few', 'last']) await set(`tunnel:${key}`, undefined);
  });

  it('for whatever a policy may ask, and when another daemon takes over', async () => {
    const dice = new Dice(SEED);
    for (let round = 0; round < PARTS; round++) {
      const key = `tunnel:${dice.below(8)}`;
      await set(key, dice.chance(15) ? undefined : randomTunnel(dice));
      if (round % 20 === 19) {
        await fence.close();
        fence = new LinuxFence({ start: within(ours!) });
        await fence.reconcile('tunnel', ['tunnel:1', 'tunnel:2', 'tunnel:3']);
        await expectAlike();
      }
    }
  });

  it('when it puts back what another program took away', async () => {
    await set('tunnel:a', tunnel());
    await set('bridge:lan', bridge());
    for (const change of [
      'flush table inet sectunnel',
      'add chain inet sectunnel strange; add rule inet sectunnel output jump strange',
      'add set inet sectunnel odd { type ipv4_addr; }',
      'delete table inet sectunnel',
    ]) {
      for (const namespace of [ours!, theirs!]) await namespace.exec(['nft', change]);
      expect((await fence.mend()).found).not.toEqual([]);
      await expectAlike();
    }
  });
});

/**
 * Where nft fills a set of ranges that was there before it has, for what lies before the first one, an end of no range: it says nothing.
 * Where it makes the set it has none.
 */
function isAlike(own: ObjectContent | undefined, other: ObjectContent | undefined): boolean {
  if (own === undefined || other === undefined) return false;
  return [other, ...NO_RANGE.map((hash) => without(other, hash))].some((each) => isDeepStrictEqual(own, each));
}

function without({ properties, count, high, low }: ObjectContent, hash: ContentHash): ObjectContent {
  return { properties, count: count - 1, high: (high - hash.high) | 0, low: (low - hash.low) | 0 };
}

/** The end of a range at the first address of each family, as it is listed. */
const NO_RANGE: readonly ContentHash[] = [4, 16].map((length) => {
  const value = Uint8Array.of(4 + length, 0, NFTA_DATA.VALUE, 0, ...new Uint8Array(length));
  const hash = new ContentHash();
  // Key, end of the key, data, flags, object.
  for (const part of [value, [], [], [0, 0, 0, 1], []]) hash.bytes(Uint8Array.from(part));
  return hash;
});

/** Without handles; what has no order is sorted. */
function comparable(json: unknown): unknown {
  if (Array.isArray(json)) return json.map(comparable);
  if (typeof json !== 'object' || json === null) return json;
  return Object.fromEntries(
    Object.entries(json)
      .filter(([key]) => key !== 'handle')
      .map(([key, value]) => [key, isUnordered(key, value) ? sorted(value.map(comparable)) : comparable(value)]),
  );
}

function isUnordered(key: string, value: unknown): value is readonly unknown[] {
  return (key === 'set' || key === 'elem') && Array.isArray(value);
}

function sorted(values: readonly unknown[]): unknown[] {
  const text = (value: unknown): string => JSON.stringify(value);
  return [...values].sort((a, b) => (text(a) < text(b) ? -1 : 1));
}

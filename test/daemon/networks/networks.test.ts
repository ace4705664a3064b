/** Networks of libvirt that tunnels hold: what stands around them, and when. The kernel and libvirt are in memory. */
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { parseAddress } from '../../../src/base/address.ts';
import { SectunnelError } from '../../../src/base/error.ts';
import { formatStatus } from '../../../src/cli/format.ts';
import { parseDocument } from '../../../src/config/parse.ts';
import { DaemonClient } from '../../../src/control/client.ts';
import { HeldNetworks } from '../../../src/daemon/networks/networks.ts';
import { type HoldingTunnel, holdingTunnel } from '../../../src/daemon/networks/plan.ts';
import type { FencePart } from '../../../src/hostnet/fence/fence.ts';
import { MemoryFence } from '../../../src/hostnet/fence/memory.ts';
import type { ForeignRule, ForeignRules } from '../../../src/hostnet/foreign/rules.ts';
import { MemoryHostNetwork } from '../../../src/hostnet/routes/memory.ts';
import { PolicyRouting } from '../../../src/hostnet/steering/policy-routing.ts';
import { TableNumbers } from '../../../src/hostnet/steering/table-numbers.ts';
import { TUNNEL_NAMESPACE } from '../../../src/libvirt/namespace.ts';
import { MemoryNetwork } from '../../../src/tun/udp/memory.ts';
import {
  eventually,
  type LogLine,
  recordingLog,
  SECRET_UUID,
  TestDaemon,
  temporaryFolder,
  tunnelDocument,
} from '../../support/daemon.ts';

interface NetworkWords {
  readonly name?: string;
  readonly bridge?: string;
  readonly tunnel?: string;
  readonly mode?: string;
  readonly forward?: string;
}

function network(words: NetworkWords = {}): string {
  const { name = 'lan', bridge = 'virbr9', tunnel = 'net', mode = 'exclusive' } = words;
  const { forward = "<forward mode='route' dev='stun-net'/>" } = words;
  const pin = `<metadata><s:tunnel xmlns:s='${TUNNEL_NAMESPACE}' name='${tunnel}' mode='${mode}'/></metadata>`;
  return `<network><name>${name}</name>${pin}${forward}<ip address='10.1.0.1' prefix='24'/><bridge name='${bridge}'/></network>`;
}

/** libvirt's rules, and whoever takes them. */
class Rules implements ForeignRules {
  rules: ForeignRule[] = [];
  isHidden = false;
  #onChange = (): void => undefined;

  watch(onChange: () => void): void {
    this.#onChange = onChange;
  }

  read(): ForeignRule[] {
    return this.rules;
  }

  linkIndex(): number {
    return 7;
  }

  hidden(): Promise<boolean> {
    return Promise.resolve(this.isHidden);
  }

  close(): Promise<void> {
    return Promise.resolve();
  }

  /** For all networks with a bridge of that index, in IPv4. */
  stand(present: boolean): void {
    const of = (chain: string, jump?: string, constant = ''): ForeignRule => ({
      ...{ family: 4, table: 'libvirt_network', chain, jump },
      constants: [constant],
    });
    const chains = ['guest_input', 'guest_output'];
    this.rules = present
      ? [
          ...chains.flatMap((chain) => [of('forward', chain), of(chain, undefined, '07000000')]),
          of('guest_nat', undefined, '0a0100'),
        ]
      : [];
    this.#onChange();
  }
}

/** A host with a tunnel `net`, and one `lax` whose policy is level='use'. */
/** The table of a tunnel that has one to itself. */
function numberOf(tunnel: string): number {
  return new TableNumbers(() => false).own({ tunnel, table: undefined });
}

class Host {
  readonly fence: MemoryFence = new MemoryFence();
  readonly routes: MemoryHostNetwork = new MemoryHostNetwork();
  readonly lines: LogLine[] = [];
  readonly rules = new Rules();
  readonly folder: string = temporaryFolder();
  readonly started: string[] = [];
  /** What the fence was when a tunnel was started. */
  fencedAtStart: readonly string[] = [];
  failure: Error | undefined;
  readonly documents: Map<string, HoldingTunnel>;

  constructor() {
    const lax = tunnelDocument({ name: 'lax' }).replace("level='require'", "level='use'");
    const apart = tunnelDocument({ name: 'apart', extra: "<device netns='red'/>" });
    const unled = tunnelDocument({ name: 'unled', extra: "<device routes='none'/>" });
    const documents = [tunnelDocument(), lax, apart, unled].map((xml) => holdingTunnel(parseDocument(xml)));
    this.documents = new Map(documents.map((tunnel) => [tunnel.document.name, tunnel]));
  }

  /** A daemon, also one after another. */
  networks(): HeldNetworks {
    const routing = new PolicyRouting(this.routes);
    return new HeldNetworks({
      platform: {
        fence: this.fence,
        routeBridge: async (bridge, own, tunnel) => {
          const undo = routing.routeBridge(bridge, own, tunnel);
          return async () => undo();
        },
        forgetBridges: () => routing.forgetBridges(),
        foreignRules: this.rules,
      },
      tunnels: {
        find: (name) => this.documents.get(name),
        wanted: (name) => {
          this.fencedAtStart = [...this.fence.parts.keys()];
          if (this.failure !== undefined) return Promise.reject(this.failure);
          this.started.push(name);
          return Promise.resolve();
        },
        state: () => 'up',
      },
      libvirtSockets: [join(this.folder, 'virtsecretd-sock'), join(this.folder, 'libvirt-sock')],
      log: recordingLog(this.lines),
    });
  }

  /** libvirt runs a network, as its run folder says. */
  running(name: string, xml: string): void {
    mkdirSync(join(this.folder, 'network'), { recursive: true });
    writeFileSync(join(this.folder, 'network', `${name}.xml`), `<networkstatus>${xml}</networkstatus>`);
  }

  stopped(name: string): void {
    rmSync(join(this.folder, 'network', `${name}.xml`));
  }

  parts(): Record<string, FencePart> {
    return Object.fromEntries(this.fence.parts);
  }

  /** Where packets that come in by bridges are led: `virbr9 → table 7001`. */
  led(): string[] {
    return this.routes
      .rules(4)
      .flatMap(({ inputLink, action }) =>
        inputLink === undefined
          ? []
          : [`${inputLink} → ${action.type === 'table' ? `table ${action.table}` : action.type}`],
      );
  }
}

const shut = (devices: readonly string[], bridge = 'virbr9'): FencePart => ({
  kind: 'bridge',
  bridge,
  devices,
  closed: true,
  dns: false,
});

async function refusal(attempt: Promise<unknown>): Promise<string> {
  try {
    await attempt;
  } catch (error) {
    if (error instanceof SectunnelError) return error.message;
    throw error;
  }
  throw new Error('it was not refused');
}

describe('a network that starts', () => {
  it('is fenced and led into its tunnel before that is started, and free again when it has stopped', async () => {
    const host = new Host();
    const networks = host.networks();
    const table = numberOf('net');
    expect(await networks.start(network())).toEqual({ tunnel: 'net', mode: 'exclusive' });
    expect(host.fencedAtStart).toEqual(['network:lan']);
    expect(host.parts()).toEqual({ 'network:lan': shut(['stun-net']) });
    expect(host.led()).toEqual([`virbr9 → table ${table}`, 'virbr9 → unreachable']);
    expect(host.routes.rules(6).filter(({ inputLink }) => inputLink === 'virbr9')).toHaveLength(2);
    expect(host.started).toEqual(['net']);
    await networks.stopped('lan');
    expect([host.parts(), host.led()]).toEqual([{}, []]);
    await networks.stopped('lan');
  });

  it('is none of our business without a tunnel', async () => {
    const host = new Host();
    const xml = "<hookData><network><name>n</name><bridge name='virbr0'/></network></hookData>";
    expect(await host.networks().start(xml)).toBeUndefined();
    expect([host.parts(), host.started]).toEqual([{}, []]);
  });

  it('leaves nothing behind when its tunnel cannot start', async () => {
    const host = new Host();
    host.failure = new SectunnelError('system', 'the name cannot be resolved');
    expect(await refusal(host.networks().start(network()))).toBe('the name cannot be resolved');
    expect([host.parts(), host.led()]).toEqual([{}, []]);
  });

  it('leaves nothing behind when libvirt did not wait for the answer', async () => {
    const host = new Host();
    const networks = host.networks();
    expect(await refusal(networks.start(network(), () => false))).toContain(
      "libvirt no longer waits for network 'lan'",
    );
    expect([host.parts(), host.led(), await networks.list()]).toEqual([{}, [], []]);
  });

  it('is held alone or not at all: it is refused when its fence cannot be installed', async () => {
    const host = new Host();
    host.fence.set = () => Promise.reject(new Error('the program nft is missing'));
    await expect(host.networks().start(network())).rejects.toThrow('the program nft is missing');
    expect([host.led(), host.started]).toEqual([[], []]);
  });

  it.each([
    [network({ tunnel: 'other' }), "it names the tunnel 'other', which is not defined"],
    [network({ mode: 'both' }), "mode='both': allowed"],
    [network({ forward: '<forward/>' }), "mode='nat' would hide the guests' addresses"],
    [network({ forward: "<forward mode='route' dev='eth0'/>" }), "the tunnel's is stun-net"],
    [network({ tunnel: 'lax', forward: "<forward mode='route'/>" }), "tunnel 'lax' has level='use' on line"],
    [network({ tunnel: 'apart', forward: "<forward mode='route'/>" }), "whose <device> says netns='red'"],
    [network({ tunnel: 'unled', forward: "<forward mode='route'/>" }), "whose <device> says routes='none'"],
    [network().replace(/<bridge.*>/, '</network>'), "it has no <bridge name='…'/>"],
    ['<network>', 'not well-formed'],
  ])('is refused: %s', async (xml, message) => {
    const host = new Host();
    expect(await refusal(host.networks().start(xml))).toContain(message);
    expect([host.parts(), host.led(), host.started]).toEqual([{}, [], []]);
  });

  it('keeps what its policy protects from passing in the clear where the rest may', async () => {
    const host = new Host();
    await host.networks().start(network({ mode: 'selective', forward: '<forward/>' }));
    const selectors = [{ local: { start: { value: 0x0a010000n } }, remote: { start: { value: 0x0a020000n } } }];
    expect(host.parts()).toMatchObject({
      'network:lan': { kind: 'bridge', bridge: 'virbr9', closed: false, dns: true },
      'network-policy:lan': { kind: 'tunnel', device: 'stun-net', outbound: selectors, inbound: selectors },
      'network-addresses:lan': { kind: 'untranslated', bridge: 'virbr9', device: 'stun-net' },
    });
    expect(host.led()).toEqual([]);
    const [own] = host.routes.rules(4).filter(({ to }) => to !== undefined);
    expect(own?.action).toEqual({ type: 'table', table: 254 });
  });

  it('may have a lax policy where the tunnel is not its only way', async () => {
    const host = new Host();
    const xml = network({ tunnel: 'lax', mode: 'selective', forward: '<forward/>' });
    expect(await host.networks().start(xml)).toEqual({ tunnel: 'lax', mode: 'selective' });
  });

  it('has a bridge of its own', async () => {
    const networks = new Host().networks();
    await networks.start(network());
    expect(await refusal(networks.start(network({ name: 'other' })))).toContain("network 'lan' already has the bridge");
    await networks.start(network({ name: 'other', bridge: 'virbr8' }));
    expect((await networks.list()).map(({ name, bridge }) => [name, bridge])).toEqual([
      ['lan', 'virbr9'],
      ['other', 'virbr8'],
    ]);
  });
});

describe('networks that ran before the daemon', () => {
  it('are held again, with what the former daemon left, and need their tunnels', async () => {
    const host = new Host();
    await host.networks().start(network());
    host.running('lan', network());
    host.running('plain', "<network><name>plain</name><bridge name='virbr0'/></network>");
    const [parts, led] = [host.parts(), host.led()];
    const next = host.networks();
    expect(await next.open()).toEqual(['net']);
    expect([host.parts(), host.led()]).toEqual([parts, led]);
    expect(await next.list()).toMatchObject([{ name: 'lan', bridge: 'virbr9', running: true, tunnel: 'net' }]);
    host.stopped('lan');
    expect(await next.list()).toMatchObject([{ name: 'lan', running: false }]);
    await next.stopped('lan');
    expect([host.parts(), host.led()]).toEqual([{}, []]);
  });

  it('keep what stands around them when they cannot be read, or held', async () => {
    const host = new Host();
    await host.networks().start(network());
    await host.networks().start(network({ name: 'other', bridge: 'virbr8' }));
    host.running('lan', '<network');
    host.running('other', network({ name: 'other', bridge: 'virbr8' }));
    const before = host.parts();
    host.fence.set = () => Promise.reject(new Error('nft has crashed'));
    expect(await host.networks().open()).toEqual(['net']);
    expect(host.parts()).toEqual(before);
    expect(host.lines.map(({ text }) => text).join()).toContain('a running network cannot be held: nft has crashed');
  });

  it('are tried again when they could not be held', async () => {
    const host = new Host();
    host.running('lan', network());
    const { set } = host.fence;
    host.fence.set = () => Promise.reject(new Error('nft has crashed'));
    const networks = host.networks();
    await networks.open();
    await networks.look();
    expect(host.parts()).toEqual({});
    host.fence.set = set;
    await networks.look();
    expect(host.parts()).toEqual({ 'network:lan': shut(['stun-net']) });
    await networks.close();
  });

  it('and stop without a word, are let go', async () => {
    const host = new Host();
    host.running('lan', network());
    const networks = host.networks();
    await networks.open();
    host.stopped('lan');
    await networks.look();
    await networks.look();
    expect([host.parts(), host.led()]).toEqual([{}, []]);
    await networks.close();
  });

  it('and stopped meanwhile, leave nothing', async () => {
    const host = new Host();
    await host.networks().start(network());
    expect(await host.networks().open()).toEqual([]);
    expect(host.led()).toEqual([]);
  });

  it('are shut when their tunnel is not known any more, or does not suit them, and that is said', async () => {
    const host = new Host();
    host.running('lan', network({ tunnel: 'gone', mode: 'selective', forward: '<forward/>' }));
    host.running('torn', '<network');
    host.running('natted', network({ name: 'natted', bridge: 'virbr8', forward: '<forward/>' }));
    const networks = host.networks();
    expect(await networks.open()).toEqual(['gone', 'net']);
    expect(host.parts()).toEqual({ 'network:lan': shut([]), 'network:natted': shut([], 'virbr8') });
    const errors = host.lines.filter(({ level }) => level === 'error').map(({ text }) => text);
    expect(errors).toEqual([
      expect.stringContaining('torn.xml'),
      expect.stringContaining("the network is cut off: it names the tunnel 'gone'"),
      expect.stringContaining("the network is cut off: mode='nat'"),
    ]);
    // Once there is such a tunnel it holds the network.
    host.documents.set('gone', holdingTunnel(parseDocument(tunnelDocument({ name: 'gone' }))));
    await networks.tunnelChanged('gone');
    expect(host.lines.at(-1)).toMatchObject({ level: 'info', fields: { network: 'lan' } });
  });
});

describe('networks that the hook does not tell of', () => {
  it('are found and held, and it is said what is missing', async () => {
    const host = new Host();
    const networks = host.networks();
    await networks.open();
    host.running('lan', network());
    host.running('plain', "<network><name>plain</name><bridge name='virbr0'/></network>");
    host.running('torn', '<network');
    await networks.look();
    await networks.look();
    expect(host.parts()).toEqual({ 'network:lan': shut(['stun-net']) });
    expect(host.started).toEqual(['net']);
    const errors = host.lines.filter(({ level }) => level === 'error').map(({ text }) => text);
    // Each of them once.
    expect(errors.sort()).toEqual([
      expect.stringContaining('torn.xml'),
      expect.stringContaining("install the hook with 'sectunnel hook install'"),
    ]);
    // It stops before it is looked for again.
    host.stopped('lan');
    await networks.look();
    await networks.look();
    expect(host.parts()).toEqual({});
    await networks.close();
  });

  it('are let go when libvirt has not run them for a while, but not before they have started', async () => {
    const host = new Host();
    const networks = host.networks();
    await networks.start(network());
    for (let look = 0; look < 3; look++) await networks.look();
    expect(host.parts()).not.toEqual({});
    host.running('lan', network());
    await networks.look();
    host.stopped('lan');
    await networks.look();
    expect(host.parts()).not.toEqual({});
    await networks.look();
    expect([host.parts(), host.led()]).toEqual([{}, []]);
    expect(host.lines.at(-1)).toMatchObject({ level: 'warn' });
  });
});

describe("libvirt's own rules around a network", () => {
  const selective = network({ mode: 'selective', forward: '<forward/>' });
  const closed = (host: Host): unknown => (host.parts()['network:lan'] as { closed?: boolean }).closed;

  it('are gone: packets pass only through the tunnel until they return, and both changes are reported', async () => {
    vi.useFakeTimers();
    onTestFinished(() => void vi.useRealTimers());
    const host = new Host();
    const networks = host.networks();
    await networks.open();
    await networks.start(selective);
    // It is about to start: they are not there yet.
    await networks.look();
    expect(closed(host)).toBe(false);
    host.rules.stand(true);
    await vi.advanceTimersByTimeAsync(200);
    host.rules.stand(false);
    await vi.advanceTimersByTimeAsync(200);
    expect(host.parts()).toMatchObject({
      'network:lan': { ...shut(['stun-net']), dns: true },
      'network-policy:lan': {},
    });
    expect((await networks.list())[0]?.problem).toContain("until 'systemctl restart libvirtd'; a reload is not enough");
    writeFileSync(join(host.folder, 'virtnetworkd-sock'), '');
    expect((await networks.list())[0]?.problem).toContain("until 'systemctl restart virtnetworkd'");
    await vi.advanceTimersByTimeAsync(5_000);
    expect(host.lines.filter(({ level }) => level === 'error').map(({ text }) => text)).toEqual([
      expect.stringContaining('packets leave and enter it only through the tunnel, and libvirt starts no network'),
    ]);
    host.rules.stand(true);
    await vi.advanceTimersByTimeAsync(200);
    expect([closed(host), (await networks.list())[0]?.problem]).toEqual([false, undefined]);
    expect(host.lines.at(-1)?.text).toContain('are back');
    await networks.close();
  });

  it('are gone for a moment, as when libvirt restarts: this is not reported', async () => {
    vi.useFakeTimers();
    onTestFinished(() => void vi.useRealTimers());
    const host = new Host();
    const networks = host.networks();
    await networks.open();
    await networks.start(selective);
    const before = host.lines.length;
    for (const present of [true, false]) {
      host.rules.stand(present);
      await vi.advanceTimersByTimeAsync(200);
    }
    expect(closed(host)).toBe(true);
    host.rules.stand(true);
    await vi.advanceTimersByTimeAsync(10_000);
    expect([closed(host), host.lines.length]).toEqual([false, before]);
    await networks.close();
  });

  it('were taken while no daemon ran: that is known of a network that runs, where they could be seen', async () => {
    const host = new Host();
    host.running('lan', selective);
    const networks = host.networks();
    await networks.open();
    expect([closed(host), (await networks.list())[0]?.problem]).toEqual([
      true,
      expect.stringContaining("removed libvirt's own rules"),
    ]);
    await networks.close();
    const other = new Host();
    other.rules.isHidden = true;
    other.running('lan', selective);
    const blind = other.networks();
    await blind.open();
    expect([closed(other), (await blind.list())[0]?.problem]).toEqual([false, undefined]);
    await blind.close();
  });

  it('are not missed by a network that has none, or that has stopped', async () => {
    const host = new Host();
    host.running('lan', network({ mode: 'selective', forward: "<forward mode='open'/>" }));
    const networks = host.networks();
    await networks.open();
    expect((await networks.list())[0]?.problem).toBeUndefined();
    await networks.stopped('lan');
    await networks.start(selective);
    expect(closed(host)).toBe(false);
    await networks.close();
  });
});

describe('a network that runs, and whose document changes', () => {
  async function running(xml: string): Promise<{ host: Host; networks: HeldNetworks; told: () => string | undefined }> {
    const host = new Host();
    host.rules.isHidden = true;
    host.documents.set('second', holdingTunnel(parseDocument(tunnelDocument({ name: 'second' }))));
    host.running('lan', xml);
    const networks = host.networks();
    onTestFinished(() => networks.close());
    await networks.open();
    return { host, networks, told: () => host.lines.findLast(({ level }) => level !== 'info')?.text };
  }
  const free = "<forward mode='route'/>";

  it('is held by the tunnel that it names now, which is started', async () => {
    const { host, networks, told } = await running(network({ forward: free }));
    host.running('lan', network({ tunnel: 'second', forward: free }));
    await networks.look();
    expect(host.parts()).toEqual({ 'network:lan': shut(['stun-second']) });
    expect(host.led()).toEqual([`virbr9 → table ${numberOf('second')}`, 'virbr9 → unreachable']);
    expect(host.started).toEqual(['second']);
    expect(told()).toContain("no longer names tunnel 'net' in mode exclusive");
    host.running('lan', network({ tunnel: 'second', mode: 'selective', forward: free }));
    await networks.look();
    expect(host.parts()).toMatchObject({ 'network:lan': { closed: false }, 'network-policy:lan': {} });
    expect(host.led()).toEqual([]);
  });

  it('is shut when that tunnel is not known, and stays as it is while its document cannot be read', async () => {
    const { host, networks, told } = await running(network({ forward: free }));
    host.running('lan', network({ mode: 'both' }));
    await networks.look();
    expect(host.parts()).toEqual({ 'network:lan': shut(['stun-net']) });
    expect(told()).toContain('a running network cannot be read');
    host.running('lan', network({ tunnel: 'nowhere', forward: free }));
    await networks.look();
    expect(host.parts()).toEqual({ 'network:lan': shut([]) });
    expect((await networks.list())[0]?.problem).toContain("tunnel 'nowhere', which is not defined");
  });

  it('is held no longer when it names none, and again when it does', async () => {
    const { host, networks, told } = await running(network({ forward: free }));
    const plain = network({ forward: free }).replace(/<metadata>.*<\/metadata>/, '');
    host.running('lan', plain);
    await networks.look();
    expect([host.parts(), host.led()]).toEqual([{}, []]);
    expect(told()).toContain('its document no longer names a tunnel, and it continues to run');
    host.running('lan', network({ forward: free }));
    await networks.look();
    expect(host.parts()).toEqual({ 'network:lan': shut(['stun-net']) });
    expect(told()).toBe('the document of a running network names a tunnel now');
  });

  it('is followed at once, not only when it is looked for', async () => {
    const { host } = await running(network({ forward: free }));
    host.running('lan', network({ tunnel: 'second', forward: free }));
    // It is looked every ten seconds.
    const followed = (): boolean => isDeepStrictEqual(host.parts(), { 'network:lan': shut(['stun-second']) });
    await eventually('the other tunnel', followed, 5_000);
  });
});

describe('a tunnel that holds networks', () => {
  it('is followed when its document changes', async () => {
    const host = new Host();
    const networks = host.networks();
    await networks.start(network({ forward: "<forward mode='route'/>" }));
    const xml = tunnelDocument({ extra: "<device name='stun7' table='7007'/>" });
    host.documents.set('net', holdingTunnel(parseDocument(xml)));
    await networks.tunnelChanged('net');
    expect(host.parts()).toEqual({ 'network:lan': shut(['stun7']) });
    expect(host.led()).toEqual(['virbr9 → table 7007', 'virbr9 → unreachable']);
    await networks.stopped('lan');
    expect([host.parts(), host.led()]).toEqual([{}, []]);
  });

  it('keeps the device that libvirt forwards to', async () => {
    const networks = new Host().networks();
    await networks.start(network());
    const moved = parseDocument(tunnelDocument({ extra: "<device name='stun7'/>" }));
    expect(() => networks.checkDocument(moved)).toThrow(
      "with this document it could no longer hold network 'lan': dev='stun-net' has",
    );
  });

  it('gets no policy that would let their packets out in the clear', async () => {
    const networks = new Host().networks();
    const lax = parseDocument(tunnelDocument().replace("level='require'", "level='use'"));
    networks.checkDocument(lax);
    await networks.start(network());
    expect(() => networks.checkDocument(lax)).toThrow(/network 'lan'.*level='use' on line \d+/);
  });
});

describe('a daemon whose networks libvirt starts', () => {
  async function daemon(): Promise<TestDaemon> {
    const test = new TestDaemon(new MemoryNetwork().host([parseAddress('192.0.2.1')!]));
    onTestFinished(() => test.close());
    test.fence = new MemoryFence();
    await test.open();
    await test.giveSecret();
    return test;
  }

  it('starts the tunnel with the network, and reports both', async () => {
    const { client } = await daemon();
    await client.call('define', { xml: tunnelDocument() });
    const hook = { network: 'lan', xml: `<hookData>${network()}</hookData>` };
    expect(await client.call('network-hook', { ...hook, operation: 'start' })).toEqual({ tunnel: 'net' });
    expect((await client.call('info', { name: 'net' })).active).toBe(true);
    const status = await client.call('status', { name: 'net' });
    expect(status.networks).toMatchObject([{ name: 'lan', tunnel: 'net', mode: 'exclusive', running: false }]);
    expect(formatStatus(status)).toContain('\n  holds network lan (exclusive, bridge virbr9), dropped: nothing\n');
    expect(await client.call('network-hook', { ...hook, operation: 'started' })).toEqual({});
    // With the tunnel stopped the network is still held.
    await client.call('destroy', { name: 'net' });
    expect((await client.call('net-list', {})).networks).toMatchObject([{ name: 'lan', tunnelState: 'inactive' }]);
    await client.call('network-hook', { ...hook, operation: 'stopped' });
    expect((await client.call('net-list', {})).networks).toEqual([]);
  });

  it('does not start a network whose tunnel cannot start, or whose start libvirt has given up', async () => {
    const test = await daemon();
    const hook = { network: 'lan', operation: 'start', xml: network() };
    await expect(test.client.call('network-hook', hook)).rejects.toThrow(
      "names the tunnel 'net', which is not defined",
    );
    await test.client.call('define', { xml: tunnelDocument() });
    await test.client.call('secret-undefine', { uuid: SECRET_UUID });
    await expect(test.client.call('network-hook', hook)).rejects.toThrow(SECRET_UUID);
    await test.giveSecret();
    // The kernel takes its time.
    const { fence } = test;
    const set = fence!.set.bind(fence);
    fence!.set = async (...part) => {
      await new Promise((resolve) => setTimeout(resolve, 20));
      await set(...part);
    };
    const impatient = await DaemonClient.connect(test.runDir);
    const answer = impatient.call('network-hook', hook);
    impatient.close();
    await answer.catch(() => undefined);
    await eventually('the request to be over', async () => (await test.client.call('info', { name: 'net' })).active);
    await eventually(
      'the network to be let go',
      async () => (await test.client.call('net-list', {})).networks.length === 0,
    );
  });

  it('starts a network whose tunnel cannot start yet, shut, and tries the tunnel again', async () => {
    const test = await daemon();
    await test.client.call('define', { xml: tunnelDocument() });
    const hook = { network: 'lan', operation: 'start', xml: network() };
    test.refuseDevices = true;
    expect(await test.client.call('network-hook', hook)).toEqual({ tunnel: 'net' });
    const [tunnel] = (await test.client.call('status', { name: 'net' })).tunnels;
    expect(tunnel?.lastFailure?.detail).toContain('no device today');
    expect((await test.client.call('net-list', {})).networks).toMatchObject([
      { name: 'lan', tunnelState: 'waiting to retry' },
    ]);
    // Another network of the same tunnel does not wait for it.
    const other = { network: 'other', operation: 'start', xml: network({ name: 'other', bridge: 'virbr8' }) };
    expect(await test.client.call('network-hook', other)).toEqual({ tunnel: 'net' });
  });

  it('rewrites a network, and says when there is no libvirt to define it', async () => {
    const { client } = await daemon();
    await client.call('define', { xml: tunnelDocument() });
    const xml = "<network><name>lan</name><forward mode='route' tunnel='net'/></network>";
    const read = await client.call('net-import', { xml, define: false });
    expect(read).toMatchObject({ name: 'lan', tunnel: 'net', mode: 'exclusive' });
    expect(read.xml).toContain('dev="stun-net"');
    await expect(client.call('net-import', { xml, define: true })).rejects.toThrow('libvirt is not to be asked');
  });
});

describe('a fence that cannot be changed now', () => {
  it('is no reason for a daemon not to start, and what a daemon before it left is taken away later', async () => {
    const host = new Host();
    const part: FencePart = { kind: 'bridge', bridge: 'virbr1', devices: [], closed: true, dns: false };
    await host.fence.set('bridge:gone', part);
    const reconcile = host.fence.reconcile.bind(host.fence);
    host.fence.reconcile = () => Promise.reject(new Error('no descriptors'));
    const networks = host.networks();
    onTestFinished(() => networks.close());
    expect(await networks.open()).toEqual([]);
    expect(host.lines).toMatchObject([
      { level: 'warn', text: expect.stringMatching(/could not be removed yet: no descr/) },
    ]);
    host.fence.reconcile = reconcile;
    await networks.look();
    expect([...host.fence.parts.keys()]).toEqual([]);
  });

  it('is no reason not to list what is known of networks', async () => {
    const host = new Host();
    const networks = host.networks();
    onTestFinished(() => networks.close());
    await networks.start(network());
    host.fence.counters = () => Promise.reject(new Error('no descriptors'));
    expect(await networks.list()).toMatchObject([{ name: 'lan', drops: {} }]);
    expect(host.lines.at(-1)?.text).toBe("the counters of the networks' fences cannot be read: no descriptors");
  });
});

/** A hub at one address that many peers call, each for inner addresses of its own. */
import { parseAddress } from '../../src/base/address.ts';
import { type Identity, identityFromText } from '../../src/base/identity.ts';
import type { TunnelConfig } from '../../src/engine/config.ts';
import type { AuthMethod } from '../../src/ike/config.ts';
import { formatSelectors, type TrafficSelector } from '../../src/policy/selector.ts';
import { sel } from '../policy/helpers.ts';
import { Net, type Peer, packet, protect, tunnel } from './engine-net.ts';
import { AUTHORITY, FakePki } from './ike-fake-pki.ts';
import { child, connection } from './ike-pair.ts';

const HUB = '192.0.2.1';
/** What the hub protects. */
const LAN = '10.1.0.0/24';

export interface HubTunnel {
  readonly name: string;
  /** Inner addresses of the peers: of one entry, or of several. */
  readonly remote: string | readonly string[];
  /** The only peer that there may be; any when left out. */
  readonly peer?: string;
  readonly auth?: AuthMethod;
  readonly local?: string;
  /** Milliseconds between liveness checks, 0 for none; 30,000 when left out. */
  readonly dpd?: number;
  /** Tunnels with the same name share a device, and have inbound entries too. */
  readonly device?: string;
  /** Of its entries. */
  readonly priority?: number;
}

interface Options {
  readonly id?: string;
  readonly auth?: AuthMethod;
  readonly secret?: string;
  readonly connection?: string;
  readonly change?: Partial<TunnelConfig>;
}

const id = (text: string): Identity => identityFromText('fqdn', text);
export const HUB_ID: Identity = id('hub');
const list = (texts: string): TrafficSelector[] => texts.split(', ').map(sel);

export class Road {
  readonly net: Net = new Net();
  readonly hub: Peer = this.net.peer('hub', HUB);

  constructor(...tunnels: readonly HubTunnel[]) {
    this.hub.pki = new FakePki(AUTHORITY, HUB_ID);
    for (const config of tunnels) this.serve(config);
  }

  /** Adds a tunnel to the hub, with a key that has its name. */
  serve({ name, remote, peer, auth = 'psk', local = LAN, dpd = 30_000, device, priority = 0 }: HubTunnel): void {
    const base = connection();
    const children = [remote].flat().map((inner, i) => {
      return child(`${name}${i === 0 ? '' : i}`, { selectors: { local: list(local), remote: list(inner) } });
    });
    this.hub.secrets.set(name, `key of ${name}`);
    this.net.add(
      this.hub,
      tunnel({
        name,
        start: 'respond',
        dpdAction: 'clear',
        connections: [
          connection({
            name,
            local: { ...base.local, id: HUB_ID, auth },
            remote: {
              ...base.remote,
              auth,
              address: undefined,
              id: peer === undefined ? undefined : id(peer),
              authorities: [AUTHORITY.hash],
            },
            dpd: { interval: dpd },
            children,
          }),
        ],
        device,
        policy: children.flatMap(({ name: child, selectors }) =>
          (device === undefined ? (['out'] as const) : (['out', 'in'] as const)).map((direction) =>
            protect({ name: child, direction, child, selectors, priority }),
          ),
        ),
      }),
    );
  }

  /** A peer that has called the hub for `inner`: one CHILD SA for each. */
  call(name: string, address: string, inner: string | readonly string[], options: Options = {}): Peer {
    const peer = this.net.peer(name, address);
    this.tunnelOf(peer, inner, { id: name, ...options });
    this.net.run(1_000);
    return peer;
  }

  tunnelOf(peer: Peer, inner: string | readonly string[], options: Options): void {
    const { id: says = peer.name, auth = 'psk', secret = 'key of road', connection: name = 'net', change } = options;
    const base = connection();
    peer.secret = secret;
    peer.pki = new FakePki(AUTHORITY, id(says));
    const children = [inner].flat().map((own, i) => {
      return child(`c${i}`, { selectors: { local: list(own), remote: list(LAN) } });
    });
    const mine = { ...base.local, address: parseAddress(peer.address)!, id: id(says), auth };
    const theirs = { ...base.remote, address: parseAddress(HUB)!, id: HUB_ID, auth, authorities: [AUTHORITY.hash] };
    this.net.add(
      peer,
      tunnel({
        name: 't',
        connections: [connection({ name, local: mine, remote: theirs, children, dpd: { interval: 30_000 } })],
        policy: children.map((one) => protect({ name: one.name, child: one.name, selectors: one.selectors })),
        start: 'initiate',
        dpdAction: 'restart',
        ...change,
      }),
    );
  }

  /** The peer is gone without a word, as one that was switched off. */
  vanish(peer: Peer): void {
    this.net.peers.splice(this.net.peers.indexOf(peer), 1);
  }

  /** Sends a packet from the hub's network through a tunnel; which of the peers got it. */
  reaches(destination: string, name = 'road', port = 2000): string[] {
    const text = `to ${destination} at ${this.net.now}`;
    this.net.send(this.hub, [packet('10.1.0.1', destination, text, port)], name);
    this.net.run(100);
    return this.net.peers.filter((peer) => peer.texts().includes(text)).map((peer) => peer.name);
  }

  /** What the hub has of a tunnel: peer and inner addresses of each CHILD SA. */
  owners(name = 'road'): string[] {
    const ike = this.hub.engine.ike.status();
    return [...this.hub.tunnel(name).children.values()].map(({ ikeSaId, summary }) => {
      const sa = ike.find((one) => one.id === ikeSaId)!;
      const remote = String.fromCharCode(...sa.remoteId!.data);
      return `${remote} ${formatSelectors(summary.selectors.remote)}`;
    });
  }

  /** Why the hub refused something, without line breaks. */
  refusals(): string[] {
    return this.hub.of('failed').map(({ reason, detail }) => `${reason}: ${detail}`);
  }

  notes(): string[] {
    return this.hub.of('note').map(({ text }) => text);
  }
}

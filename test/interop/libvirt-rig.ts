/**
 * A host with libvirtd and our daemon, guests on its networks, and the other end of the tunnel, which is also where
 * everything that leaves the host in the clear arrives, and is counted:
 *
 * ```text
 *   guest -- virbr --- host --- eth0 === eth0 --- internet (strongSwan)
 *   other -- virbr ----'
 * ```
 */
import { join } from 'node:path';
import type { Lab } from '../support/lab/lab.ts';
import type { LibvirtRelease } from '../support/lab/libvirt-release.ts';
import { Libvirtd } from '../support/lab/libvirtd.ts';
import { cable, type Namespace } from '../support/lab/namespace.ts';
import { Ours } from '../support/lab/ours.ts';
import { waitFor } from '../support/lab/process.ts';
import { builtProgram } from '../support/lab/root.ts';
import { StrongSwan } from '../support/lab/strongswan.ts';
import { LINE } from './rig.ts';

export const HOST_OUTER = '192.0.2.1';
export const PEER_OUTER = '192.0.2.2';
/** Port of both ends, as in the proposal's own document. */
export const TUNNEL_PORT = 55055;
/** Seconds that the hook waits for the daemon. */
export const HOOK_PATIENCE = 4;

/** What may pass between host and internet outside of a tunnel: IKE and ESP, neighbours, the host's own errors. */
const COUNTERS = `table inet lab {
  counter clear { }
  chain arrived {
    type filter hook prerouting priority raw;
    iifname != "${LINE}" return
    udp dport ${TUNNEL_PORT} return
    meta l4proto icmpv6 icmpv6 type { nd-router-solicit, nd-neighbor-solicit, nd-neighbor-advert, mld2-listener-report } return
    ip6 saddr 2001:db8::1 icmpv6 type { echo-reply, echo-request, destination-unreachable } return
    ip saddr ${HOST_OUTER} icmp type { destination-unreachable, echo-reply, echo-request } return
    counter name clear
  }
}`;

/** For the address of `foo.com`, as printf writes it. */
const DNS_QUERY =
  '\\x12\\x34\\x01\\x00\\x00\\x01\\x00\\x00\\x00\\x00\\x00\\x00\\x03foo\\x03com\\x00\\x00\\x01\\x00\\x01';

export interface LibvirtRig {
  readonly host: Namespace;
  readonly internet: Namespace;
  readonly libvirtd: Libvirtd;
  readonly ours: Ours;
  readonly peer: StrongSwan;
}

export async function buildLibvirtRig(lab: Lab, release?: LibvirtRelease): Promise<LibvirtRig> {
  const [host, internet] = [await lab.namespace('host'), await lab.namespace('internet')];
  await cable(
    { namespace: host, device: LINE, addresses: [`${HOST_OUTER}/24`, '2001:db8::1/64'] },
    { namespace: internet, device: LINE, addresses: [`${PEER_OUTER}/24`, '2001:db8::2/64'] },
  );
  await host.ip([`route add default via ${PEER_OUTER}`, 'route add default via 2001:db8::2']);
  await internet.exec(['nft', '-f', '-'], { input: COUNTERS });
  // Nobody else has its bridges' addresses, which libvirt would wait to be sure of.
  await host.exec(['sh', '-c', 'echo 0 >/proc/sys/net/ipv6/conf/default/accept_dad']);
  const libvirtd = await Libvirtd.start(lab, host, { release });
  const ours = await Ours.start(lab, host, { arguments: ['--libvirt-socket', libvirtd.socket] });
  // The hook that users install, by the program that they install it with. libvirtd looks for hooks when it starts.
  await host.exec([
    ...[process.execPath, builtProgram('cli'), '--run-dir', join(ours.folder, 'run')],
    ...['hook', 'install', '--dir', join(libvirtd.folder('etc'), 'hooks', 'network.d')],
    ...['--timeout', String(HOOK_PATIENCE)],
  ]);
  await libvirtd.stop();
  await libvirtd.run();
  return { host, internet, libvirtd, ours, peer: await StrongSwan.start(lab, internet, { port: TUNNEL_PORT }) };
}

/** Packets that arrived in the internet outside of the tunnel. */
export async function arrivedInTheClear({ internet }: LibvirtRig): Promise<number> {
  const { stdout } = await internet.exec(['nft', '-j', 'list', 'counter', 'inet', 'lab', 'clear']);
  const { nftables } = JSON.parse(stdout) as { nftables: { counter?: { packets: number } }[] };
  return nftables.find(({ counter }) => counter !== undefined)!.counter!.packets;
}

export interface GuestAddresses {
  readonly v4: string;
  readonly v6: string;
  /** Of the host on the bridge. */
  readonly gateway4: string;
  readonly gateway6: string;
}

/** A machine on a network of libvirt's: plugged in again each time the network starts, as its bridge is a new one. */
export class Guest {
  readonly namespace: Namespace;
  readonly #host: Namespace;
  readonly #bridge: string;
  readonly #addresses: GuestAddresses;

  constructor(namespace: Namespace, host: Namespace, bridge: string, addresses: GuestAddresses) {
    this.namespace = namespace;
    this.#host = host;
    this.#bridge = bridge;
    this.#addresses = addresses;
  }

  async plugIn(): Promise<void> {
    const { v4, v6, gateway4, gateway6 } = this.#addresses;
    const port = `${this.#bridge}-p`;
    await this.#host.exec(['sh', '-c', `ip link del ${port} 2>/dev/null; true`]);
    await cable(
      { namespace: this.namespace, device: LINE, addresses: [v4, v6] },
      { namespace: this.#host, device: port, addresses: [] },
    );
    await this.#host.ip([`link set ${port} master ${this.#bridge}`]);
    await this.namespace.ip([`route add default via ${gateway4}`, `route add default via ${gateway6}`]);
    // With the spanning tree protocol a bridge listens for others first.
    await waitFor(`${this.#bridge} to forward`, async () => {
      const { stdout } = await this.#host.exec(['bridge', '-j', 'link', 'show', 'dev', port]);
      return (JSON.parse(stdout) as { state: string }[])[0]?.state === 'forwarding' ? true : undefined;
    });
    // The bridge makes sure first that nobody else has its address.
    if (!(await this.#bridgeHas(gateway6))) return;
    await waitFor(`${gateway6} to answer`, async () => {
      const { code } = await this.namespace.exec(['ping', '-n', '-q', '-c1', '-W1', gateway6], { check: false });
      return code === 0 ? true : undefined;
    });
  }

  async #bridgeHas(address: string): Promise<boolean> {
    const { stdout } = await this.#host.exec(['ip', 'addr', 'show', 'dev', this.#bridge]);
    return stdout.includes(`${address}/`);
  }

  /** The bridge's own link-local address, as this guest writes it. */
  async linkLocal(): Promise<string> {
    const { stdout } = await this.#host.exec(['ip', '-6', 'addr', 'show', 'dev', this.#bridge, 'scope', 'link']);
    return `${/inet6 (fe80:[0-9a-f:]+)/.exec(stdout)![1]}%${LINE}`;
  }

  /** Sends datagrams to addresses and ports, three to each, and waits for no answer. A name server understands them. */
  async send(targets: readonly (readonly [address: string, port: number])[]): Promise<void> {
    const lines = targets.map(
      ([address, port]) => `for i in 1 2 3; do printf '${DNS_QUERY}' >/dev/udp/${address}/${port}; done`,
    );
    await this.namespace.exec(['bash', '-c', `${lines.join('\n')}\ntrue`]);
  }
}

/**
 * The sockets of a host, shared by its tunnels: one for each local address and UDP port, and one of each family for ESP
 * straight over IP; open while a tunnel needs it.
 */

import { formatSocketAddress, type IpAddress, type IpFamily, NO_PORT, type SocketAddress } from '../base/address.ts';
import { SectunnelError } from '../base/error.ts';
import type { PathReport } from '../base/path-report.ts';
import { IKE_PORT } from '../base/ports.ts';
import type { TunnelConfig } from '../engine/config.ts';
import type { ConnectionConfig } from '../ike/config.ts';
import type { DatagramHandler, UdpNetwork, UdpSendError, UdpSocket } from '../tun/udp/udp.ts';

/** What a tunnel listens at. */
export type SocketNeed = UdpNeed | RawEspNeed;

/** A local end point; without an address, all of a family. */
interface UdpNeed {
  readonly kind: 'udp';
  readonly family: IpFamily;
  readonly address: IpAddress | undefined;
  readonly port: number;
  /** The VRF that it is bound to; left out: the default routing domain. */
  readonly vrf?: string | undefined;
  /** A host that does not have the family at all can do without. */
  readonly optional?: boolean;
}

/** ESP straight over IP, at all addresses of a family. */
interface RawEspNeed {
  readonly kind: 'esp';
  readonly family: IpFamily;
  readonly vrf?: string | undefined;
  /** A host that does not have the family at all can do without. */
  readonly optional?: boolean;
}

export interface SocketPoolOptions {
  readonly network: UdpNetwork;
  readonly onDatagram: DatagramHandler;
  /** The local address from which datagrams to `remote` leave. */
  readonly sourceFor: (remote: IpAddress) => IpAddress | undefined;
  /** For other users of a socket: called when it is open, and before it closes, which waits until they have released it. */
  readonly onOpened?: (socket: UdpSocket) => void;
  readonly onClosing?: (socket: UdpSocket) => Promise<void> | undefined;
  /** The system told errors of datagrams that were sent. */
  readonly onErrors?: () => void;
  /** A datagram of IKE was refused by the system, or did not arrive, as ICMP says. */
  readonly onRefusal?: (remote: SocketAddress, error: UdpSendError) => void;
  /** Routers reported that datagrams were too large. */
  readonly onPathReport?: (report: PathReport) => void;
  /** So many of them read ESP, where it comes to the same port as IKE. */
  readonly espQueues?: number;
}

interface Entry {
  readonly need: SocketNeed;
  readonly socket: Promise<UdpSocket>;
  users: number;
}

export class SocketPool {
  readonly #options: SocketPoolOptions;
  // BOUNDED: the ports of the configuration.
  readonly #entries = new Map<string, Entry>();
  /** The same, once they are open. */
  readonly #open = new Map<string, UdpSocket>();
  /** The same, while they close: until then the port cannot be bound again. */
  readonly #closing = new Map<string, Promise<void>>();
  #closed = false;
  /** Datagrams dropped because their socket was closed before them. */
  homeless = 0;

  constructor(options: SocketPoolOptions) {
    this.#options = options;
  }

  /** Opens what is not open yet; all or nothing. @throws Error saying what to do when one cannot be opened */
  async acquire(needs: readonly SocketNeed[]): Promise<void> {
    const taken: SocketNeed[] = [];
    try {
      for (const need of needs) {
        const { socket } = this.#entry(need);
        taken.push(need);
        await (need.optional === true ? socket.catch(unlessFamilyIsMissing) : socket);
      }
    } catch (error) {
      await this.release(taken);
      throw error;
    }
  }

  /** Closes sockets that no tunnel needs any more. */
  async release(needs: readonly SocketNeed[]): Promise<void> {
    for (const need of needs) {
      const key = keyOf(need);
      const entry = this.#entries.get(key);
      if (entry === undefined || --entry.users > 0) continue;
      this.#entries.delete(key);
      const closed = this.#close(key, entry);
      this.#closing.set(key, closed);
      await closed;
      if (this.#closing.get(key) === closed) this.#closing.delete(key);
    }
  }

  /** Closes all sockets, whichever tunnels still need them, and opens no others. */
  async close(): Promise<void> {
    this.#closed = true;
    const entries = [...this.#entries];
    this.#entries.clear();
    await Promise.all([...entries.map(([key, entry]) => this.#close(key, entry)), ...this.#closing.values()]);
  }

  async #close(key: string, entry: Entry): Promise<void> {
    this.#open.delete(key);
    const socket = await entry.socket.catch(() => undefined);
    this.#open.delete(key);
    if (socket !== undefined && entry.need.kind === 'udp')
      this.#open.delete(keyOf({ ...entry.need, port: socket.local.port }));
    if (socket === undefined) return;
    await this.#options.onClosing?.(socket);
    await socket.close();
  }

  /** Sends from the socket that is bound to `local`, or to its port on all addresses. */
  send(data: Uint8Array, local: SocketAddress, remote: SocketAddress, trafficClass = 0): boolean {
    const socket = this.find(local);
    if (socket !== undefined) return socket.send(data, remote, local, trafficClass);
    this.homeless++;
    return false;
  }

  /** The socket that is bound to `local`, or to its port on all addresses. */
  find(local: SocketAddress): UdpSocket | undefined {
    const { address, port, vrf } = local;
    const { family } = address;
    if (port === NO_PORT) return this.#open.get(keyOf({ kind: 'esp', family, vrf }));
    return (
      this.#open.get(keyOf({ kind: 'udp', family, address, port, vrf })) ??
      this.#open.get(keyOf({ kind: 'udp', family, address: undefined, port, vrf }))
    );
  }

  /** Datagrams that did not fit a path, as the system told, of the sockets that are open. */
  get tooLarge(): number {
    let count = 0;
    for (const { counters } of this.sockets()) count += counters.sendErrors.EMSGSIZE;
    return count;
  }

  sockets(): Iterable<UdpSocket> {
    return new Set(this.#open.values());
  }

  /** The same with the real ports in the place of 0, once its sockets are open. */
  withPorts(config: TunnelConfig): TunnelConfig {
    return { ...config, connections: config.connections.map((connection) => this.#withPorts(connection)) };
  }

  #withPorts(connection: ConnectionConfig): ConnectionConfig {
    const { local, remote } = connection;
    if (local.port !== 0 && local.natPort !== 0) return connection;
    const family = (local.address ?? remote.address)?.family ?? 4;
    const real = (port: number): number =>
      this.#open.get(keyOf({ kind: 'udp', family, address: local.address, port, vrf: local.vrf }))?.local.port ?? port;
    return { ...connection, local: { ...local, port: real(local.port), natPort: real(local.natPort) } };
  }

  #entry(need: SocketNeed): Entry {
    if (this.#closed) throw new SectunnelError('invalid-state', 'the host is closed');
    const key = keyOf(need);
    let entry = this.#entries.get(key);
    if (entry === undefined) {
      this.#checkOverlap(need);
      entry = { need, socket: this.#bind(key, need), users: 0 };
      this.#entries.set(key, entry);
    }
    entry.users++;
    return entry;
  }

  /** The system lets one program have a port on all addresses, or on several, not both. @throws Error */
  #checkOverlap(wanted: SocketNeed): void {
    if (wanted.kind !== 'udp') return;
    const { family, address, port, vrf } = wanted;
    for (const { need } of this.#entries.values()) {
      if (
        need.kind !== 'udp' ||
        need.family !== family ||
        need.port !== port ||
        need.vrf !== vrf ||
        (need.address === undefined) === (address === undefined)
      ) {
        continue;
      }
      const [mine, other] = [wanted, need].map(keyOf);
      throw new SectunnelError(
        'invalid-state',
        `UDP ${mine}: another tunnel has ${other}, and a port is bound on all addresses or on single ones: ` +
          'give every tunnel its local address, or none, or another port',
      );
    }
  }

  async #bind(key: string, need: SocketNeed): Promise<UdpSocket> {
    await Promise.all(this.#closing.values());
    const { network, sourceFor, espQueues = 0, onErrors, onRefusal, onPathReport } = this.#options;
    const socket = await (need.kind === 'esp'
      ? network.rawEsp?.(need.family, need.vrf)
      : network.bind({
          address: addressOf(need),
          port: need.port,
          vrf: need.vrf,
          sourceFor,
          espQueues: need.port === IKE_PORT ? 0 : espQueues,
          ikeOnly: need.port === IKE_PORT,
        }));
    if (socket === undefined)
      throw new SectunnelError('unsupported', 'ESP cannot go straight over IP here: let it go in UDP');
    socket.onDatagram(this.#options.onDatagram);
    if (onErrors !== undefined) socket.onErrors?.(onErrors);
    if (onRefusal !== undefined) socket.onRefusal?.(onRefusal);
    if (onPathReport !== undefined) socket.onPathReport?.(onPathReport);
    try {
      this.#options.onOpened?.(socket);
    } catch (error) {
      await socket.close();
      throw error;
    }
    this.#open.set(key, socket);
    // Of port 0 the system makes another one, by which paths name it.
    if (need.kind === 'udp') this.#open.set(keyOf({ ...need, port: socket.local.port }), socket);
    return socket;
  }
}

/** @throws what it is given, when it says something else */
function unlessFamilyIsMissing(error: unknown): void {
  const cause = error instanceof Error ? error.cause : undefined;
  const code = cause instanceof Error && 'code' in cause ? cause.code : undefined;
  // The second is what Linux says where IPv6 is switched off.
  if (code !== 'EAFNOSUPPORT' && code !== 'EADDRNOTAVAIL') throw error;
}

function addressOf(need: UdpNeed): IpAddress {
  return need.address ?? { family: need.family, value: 0n };
}

function keyOf(need: SocketNeed): string {
  const domain = need.vrf === undefined ? '' : ` in VRF ${need.vrf}`;
  if (need.kind === 'esp') return `ESP over IPv${need.family}${domain}`;
  return `${formatSocketAddress({ address: addressOf(need), port: need.port })}${domain}`;
}

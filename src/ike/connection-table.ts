/** The connections of an endpoint, by name and by the addresses of both ends: thousands of peers cost a look-up no more than one. */
import { addressKey, type IpAddress, type SocketAddress } from '../base/address.ts';
import { SetMap } from '../base/set-map.ts';
import { Candidates } from './candidates.ts';
import type { ConnectionConfig } from './config.ts';

/** What stands for an end that may be anywhere. */
const ANYWHERE = '';

interface Entry {
  readonly config: ConnectionConfig;
  /** Of several connections that a peer may mean the first that was added comes first. */
  readonly order: number;
}

export class ConnectionTable {
  /** BOUNDED: the owner's connections, both. */
  readonly #byName = new Map<string, Entry>();
  readonly #byEnds = new SetMap<string, Entry>();
  /** BOUNDED: as those. */
  readonly #byRemote = new SetMap<string, Entry>();
  /** What was asked for since a connection was added or removed, by the ends that are known. BOUNDED: by the connections. */
  readonly #between = new Map<string, Candidates>();
  #added = 0;

  has(name: string): boolean {
    return this.#byName.has(name);
  }

  get(name: string): ConnectionConfig | undefined {
    return this.#byName.get(name)?.config;
  }

  *values(): Iterable<ConnectionConfig> {
    for (const { config } of this.#byName.values()) yield config;
  }

  /** Adds a connection, or puts it in the place of the one that has its name. */
  set(config: ConnectionConfig): void {
    const before = this.#byName.get(config.name);
    if (before !== undefined) this.#unlink(before);
    this.#between.clear();
    const entry = { config, order: before?.order ?? this.#added++ };
    this.#byName.set(config.name, entry);
    this.#byEnds.add(configKey(config), entry);
    this.#byRemote.add(addressText(config.remote.address), entry);
  }

  delete(name: string): void {
    const entry = this.#byName.get(name);
    if (entry === undefined) return;
    this.#byName.delete(name);
    this.#unlink(entry);
  }

  #unlink(entry: Entry): void {
    this.#between.clear();
    this.#byEnds.delete(configKey(entry.config), entry);
    this.#byRemote.delete(addressText(entry.config.remote.address), entry);
  }

  /** Whether a connection has this remote address, and not one that may be anywhere. */
  names(remote: IpAddress): boolean {
    return this.#byRemote.get(addressText(remote)).size > 0;
  }

  /** The connections that a peer may mean that writes from one address to the other, in the order in which they were added. */
  between({ address: local, vrf }: SocketAddress, remote: IpAddress): Candidates {
    const ends = [endsKey(vrf, local, remote), endsKey(vrf, local), endsKey(vrf, undefined, remote), endsKey(vrf)];
    // Anyone may ask from any address: what nothing is known of has no part in the key.
    const known = ends.filter((key) => this.#byEnds.get(key).size > 0);
    const key = known.join(',');
    let candidates = this.#between.get(key);
    if (candidates === undefined) {
      const entries = known.flatMap((end) => [...this.#byEnds.get(end)]).sort((a, b) => a.order - b.order);
      candidates = new Candidates(entries.map(({ config }) => config));
      this.#between.set(key, candidates);
    }
    return candidates;
  }
}

function configKey({ local, remote }: ConnectionConfig): string {
  return endsKey(local.vrf, local.address, remote.address);
}

function endsKey(vrf: string | undefined, local?: IpAddress, remote?: IpAddress): string {
  return `${addressText(local)}-${addressText(remote)}${vrf === undefined ? '' : ` ${vrf}`}`;
}

function addressText(address: IpAddress | undefined): string {
  return address === undefined ? ANYWHERE : addressKey(address);
}

/**
 * The connections that a peer may mean, and what follows from all of them. It is worked out when it is first asked for and then
 * kept: thousands of peers may begin between the same two addresses.
 */
import { type Identity, identityKey } from '../base/identity.ts';
import type { ConnectionConfig } from './config.ts';
import type { IkeSuite } from './keys/keys.ts';
import { certificateRequests, usesSignatures } from './keys/signature.ts';
import { type Chosen, chooseIke } from './proposals/proposals.ts';
import type { Payload } from './wire/payload.ts';

/** Authorities named to a peer that is not authenticated, in a message that cannot be fragmented. */
const MAX_ASKED_OPENLY = 16;

/** What is agreed on before it is known which connection the peer means: what one of them has is answered. */
interface Extensions {
  /** A peer that may be of any of them is not asked for those alone that are off (RFC 7296 §2.23). */
  readonly asksForNat: boolean;
  readonly forcesEncapsulation: boolean;
  readonly fragments: boolean;
  readonly signs: boolean;
  readonly certificateRequests: readonly Payload[];
}

export class Candidates {
  /** Of several that fit the first comes first. */
  readonly configs: readonly ConnectionConfig[];
  #lists: ReadonlySet<ConnectionConfig['proposals']> | undefined;
  #extensions: Extensions | undefined;
  /** By the peer's identity; under `undefined` those that name none. BOUNDED: by the connections. */
  #byPeer: Map<string | undefined, number[]> | undefined;
  /** Of the identities that they name. */
  readonly #types = new Set<number>();

  constructor(configs: readonly ConnectionConfig[]) {
    this.configs = configs;
  }

  /** Of all. */
  get proposals(): ConnectionConfig['proposals'] {
    return [...this.#proposalLists()].flat();
  }

  /** Most have the same, which are the same object then (`internProposals`). */
  #proposalLists(): ReadonlySet<ConnectionConfig['proposals']> {
    this.#lists ??= new Set(this.configs.map(({ proposals }) => proposals));
    return this.#lists;
  }

  get extensions(): Extensions {
    this.#extensions ??= {
      asksForNat: this.configs.some(({ nat }) => nat.mode !== 'off'),
      forcesEncapsulation: this.configs.some(({ nat }) => nat.mode === 'force'),
      fragments: this.configs.some(({ fragmentSize }) => fragmentSize !== 0),
      signs: this.configs.some(usesSignatures),
      certificateRequests: certificateRequests(this.configs, MAX_ASKED_OPENLY),
    };
    return this.#extensions;
  }

  /** Those that allow what was chosen from the proposals of all. */
  allowing({ proposal }: Chosen<IkeSuite>): Candidates {
    const lists = this.#proposalLists();
    const allowed = new Set([...lists].filter((list) => chooseIke([proposal], list, 'ike-sa-init') !== undefined));
    if (allowed.size === lists.size) return this;
    return new Candidates(this.configs.filter(({ proposals }) => allowed.has(proposals)));
  }

  /** Those that name this peer, or none. */
  forPeer(peer: Identity): ConnectionConfig[] {
    const byPeer = this.#peers();
    // A long name takes long to bring into a form in which it is looked up.
    const named = this.#types.has(peer.type) ? byPeer.get(identityKey(peer)) : undefined;
    const places = [...(named ?? []), ...(byPeer.get(undefined) ?? [])];
    return places.sort((a, b) => a - b).map((place) => this.configs[place]!);
  }

  #peers(): ReadonlyMap<string | undefined, number[]> {
    if (this.#byPeer !== undefined) return this.#byPeer;
    this.#byPeer = new Map();
    for (const [place, { remote }] of this.configs.entries()) {
      const key = remote.id && identityKey(remote.id);
      if (remote.id !== undefined) this.#types.add(remote.id.type);
      const places = this.#byPeer.get(key);
      if (places === undefined) this.#byPeer.set(key, [place]);
      else places.push(place);
    }
    return this.#byPeer;
  }
}

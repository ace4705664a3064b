/**
 * Chooses the source addresses of the host's own packets into a tunnel, and says for which destinations there is none:
 * addresses come and go (DHCP, router advertisements, bridges). Pure.
 */

import { type AddressRange, formatRange, type IpAddress, type IpFamily, rangeContains } from '../../base/address.ts';
import { isWhole, mergeRanges, subtractRanges } from '../../base/ranges.ts';
import { listSome } from '../../base/text.ts';
import { formatPrefix, type InterfaceAddress, type Prefix, prefixContains, type Route } from '../routes/routes.ts';
import { isRequired, type PolicyBox } from './plan.ts';
import type { TableRoute } from './routes.ts';

/** Ranges that one sentence names. */
const MAX_NAMED = 4;

/** Addresses that this host may send from, the preferred ones first. */
export class OwnAddresses {
  readonly #usable: readonly InterfaceAddress[];
  readonly #guests: readonly Prefix[];
  /** Equal for equal addresses. */
  readonly key: string;

  /** @param guests networks of routed bridges: the host has addresses there for its guests, and sends nothing else from them */
  constructor(addresses: readonly InterfaceAddress[], guests: readonly Prefix[]) {
    this.#guests = guests;
    this.#usable = addresses
      .filter(({ address, state }) => state !== 'tentative' && isUsable(address))
      .filter(({ address }) => !guests.some((prefix) => prefixContains(prefix, address)))
      .sort((a, b) => rank(a) - rank(b) || (a.address.value < b.address.value ? -1 : 1));
    const usable = this.#usable.map(({ address: { family, value } }) => `${family} ${value}`);
    this.key = [...usable, ...guests.map(formatPrefix)].join();
  }

  in(range: AddressRange): IpAddress | undefined {
    return this.#usable.find(({ address }) => rangeContains(range, address))?.address;
  }

  /**
   * Whether the host may get an address of that range as the source of its packets. `missing`: it has none. `others`: the
   * range belongs to guests of this host, so the policy does not concern what the host itself sends.
   */
  has(range: AddressRange): 'yes' | 'missing' | 'others' {
    if (isWhole(range) || this.in(range) !== undefined) return 'yes';
    return isOfGuests(range, this.#guests) ? 'others' : 'missing';
  }

  /**
   * The source of packets that have none: an address that the policy lets into the tunnel. For a policy with any local
   * address the kernel chooses, as it would without a tunnel.
   */
  preferred(sources: readonly AddressRange[], family: IpFamily): IpAddress | undefined {
    for (const range of sources) {
      if (range.start.family !== family || isWhole(range)) return undefined;
      const found = this.in(range);
      if (found !== undefined) return found;
    }
    return undefined;
  }
}

/** For what does not depend on them. */
export const NO_ADDRESSES: OwnAddresses = new OwnAddresses([], []);

/** Whether a range belongs to guests of this host. @param guests networks of routed bridges */
export function isOfGuests({ start, end }: AddressRange, guests: readonly Prefix[]): boolean {
  return guests.some((prefix) => prefixContains(prefix, start) && prefixContains(prefix, end));
}

function rank({ state }: InterfaceAddress): number {
  return state === 'deprecated' ? 1 : 0;
}

/** Neither of the loopback link nor link-local. */
function isUsable({ family, value }: IpAddress): boolean {
  if (family === 4) return value >> 24n !== 127n && value >> 16n !== 0xa9fen;
  return value > 1n && value >> 118n !== 0x3fan;
}

/** Routes of a tunnel's table into its device. */
export function openRoutes(
  routes: readonly TableRoute[],
  { table, linkIndex }: { readonly table: number; readonly linkIndex: number },
  own: OwnAddresses,
): Route[] {
  return routes
    .filter(({ open }) => open)
    .map(({ destination, sources }) => ({
      type: 'unicast',
      destination,
      table,
      linkIndex,
      source: own.preferred(sources, destination.address.family),
    }));
}

/**
 * Says for which protected destinations the host has no address: neither one that the policy lets into the tunnel, nor one
 * that it lets go there in the clear. Its packets that have no source yet are refused then.
 *
 * @returns `undefined` when there are none
 */
export function unservedText(outbound: readonly PolicyBox[], own: OwnAddresses): string | undefined {
  const boxes = unservedBoxes(outbound, own);
  if (boxes.length === 0) return undefined;
  const locals = namedRanges(boxes.map(({ local }) => local));
  const remotes = namedRanges(boxes.map(({ remote }) => remote));
  return (
    `this host has no address in ${locals}: its own packets to ${remotes} are refused unless the program chooses a source; ` +
    `those of other hosts are carried. Add an address, or let its other addresses pass with an <sp> that has action='none'`
  );
}

function unservedBoxes(outbound: readonly PolicyBox[], own: OwnAddresses): PolicyBox[] {
  // BOUNDED: by the policy. Many boxes have the same local addresses.
  const known = new Map<string, ReturnType<OwnAddresses['has']>>();
  const has = ({ local }: PolicyBox): ReturnType<OwnAddresses['has']> => {
    const key = formatRange(local);
    const answer = known.get(key) ?? own.has(local);
    known.set(key, answer);
    return answer;
  };
  const unserved = outbound.filter((box) => isRequired(box) && has(box) === 'missing');
  if (unserved.length === 0) return [];
  const served = outbound.filter((box) => box.action !== 'discard' && has(box) === 'yes');
  if (served.length === 0) return unserved;
  const covering = (family: IpFamily, protocol: number | undefined): AddressRange[] =>
    mergeRanges(
      served
        .filter((box) => box.remote.start.family === family)
        .filter((box) => box.protocol === undefined || box.protocol === protocol)
        .map(({ remote }) => remote),
    );
  // BOUNDED: by families and protocols.
  const covered = new Map<string, AddressRange[]>();
  return unserved.filter(({ remote, protocol }) => {
    const { family } = remote.start;
    const key = `${family} ${protocol}`;
    const ranges = covered.get(key) ?? covering(family, protocol);
    covered.set(key, ranges);
    return subtractRanges(remote, ranges).length > 0;
  });
}

function namedRanges(ranges: readonly AddressRange[]): string {
  return listSome([...new Set(ranges.map(formatRange))], MAX_NAMED);
}

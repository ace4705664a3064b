/** Which SA carries a packet that the policy protects; without one, what becomes of the packet. */
import { formatAddress, formatSocketAddress, NO_PORT } from '../base/address.ts';
import { formatSpi } from '../base/spi.ts';
import type { ChildSummary } from '../engine/events.ts';
import type { EngineChild, Tunnel } from '../engine/tunnel.ts';
import { CompiledSelectors } from '../policy/compiled.ts';
import type { PolicyEntry } from '../policy/database.ts';
import { formatSelectorPair } from '../policy/selector.ts';
import type { CarryingSa, SaExplanation } from './explanation.ts';
import type { AskedPacket } from './packet.ts';

export interface SaAnswer extends SaExplanation {
  /** What becomes of the packet, as far as SAs have a say. */
  readonly fate: 'carried' | 'held' | 'dropped';
}

/**
 * @param entry the one that decides: `protect`
 * @param now by the engine's clock
 */
export function explainSa(now: number, tunnel: Tunnel, entry: PolicyEntry, packet: AskedPacket): SaAnswer {
  const outbound = packet.direction === 'out';
  const sas = [...tunnel.children.values()].filter(({ summary }) => summary.name === entry.child);
  const fitting = sas.filter(({ summary }) =>
    new CompiledSelectors(summary.selectors).matchesFlow(packet.flow, outbound),
  );
  // Packets leave on the newest; in between a rekeying the peer may still use an older one.
  const newest = fitting.reduce<EngineChild | undefined>(
    (best, sa) => (best === undefined || sa.summary.id > best.summary.id ? sa : best),
    undefined,
  );
  if (newest !== undefined) {
    const carries = carrying(newest, outbound);
    const others = fitting.length > 1 ? `, the newest of ${fitting.length} that match` : '';
    const text = `CHILD SA #${carries.id} of '${carries.child}'${others}`;
    return { fate: 'carried', carries, text };
  }
  // One that the peer asked for is no answer to what we want; nor is one that is for another flow (pfp).
  const narrowed = sas.find(
    ({ summary }) => summary.initiator && new CompiledSelectors(summary.wanted).matchesFlow(packet.flow, outbound),
  );
  if (outbound) return missing(now, tunnel, entry, narrowed);
  return narrowed !== undefined ? narrowedAway(narrowed) : { fate: 'dropped', carries: undefined, text: NO_INBOUND };
}

const NO_INBOUND = 'there is no SA on which the peer could send it';

function carrying({ summary, path }: EngineChild, outbound: boolean): CarryingSa {
  const { address, port } = path.remote;
  return {
    id: summary.id,
    child: summary.name,
    mode: summary.mode,
    spi: formatSpi(outbound ? summary.spiOut : summary.spiIn),
    suite: summary.suite,
    esn: summary.esn,
    selectors: formatSelectorPair(summary.selectors),
    peer: port === NO_PORT ? formatAddress(address) : formatSocketAddress(path.remote),
  };
}

/** The policy is for the packet, and the SA that the peer agreed to is not. */
function narrowedAway({ summary }: EngineChild): SaAnswer {
  return { fate: 'dropped', carries: undefined, text: `${narrowing(summary)}: the peer cannot send it on that SA` };
}

function narrowing({ name, selectors }: ChildSummary): string {
  return `the peer narrowed '${name}' to ${formatSelectorPair(selectors)}, which does not include the packet`;
}

function missing(
  now: number,
  tunnel: Tunnel,
  { child, pfp }: PolicyEntry,
  narrowed: EngineChild | undefined,
): SaAnswer {
  const none =
    narrowed === undefined
      ? `there is no SA for '${child}' yet${pfp === undefined ? '' : ' that carries this packet'}`
      : `${narrowing(narrowed.summary)}; another CHILD SA is requested; if the peer refuses it, the packet is dropped (counted as narrowed-by-peer)`;
  const { keepUp, retry } = tunnel;
  if (keepUp === 'none') {
    const text = `${none}, and with start='respond' only the peer negotiates one: the packet is dropped (counted as no-sa)`;
    return { fate: 'dropped', carries: undefined, text };
  }
  const when =
    retry.at === undefined
      ? 'the negotiation starts now or is under way'
      : `the last attempt failed, the next is in ${Math.max(1, Math.round((retry.at - now) / 1000))} s (see 'sectunnel status ${tunnel.config.name}')`;
  return { fate: 'held', carries: undefined, text: `${none}: the packet waits; ${when}` };
}

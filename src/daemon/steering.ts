/**
 * Leads the packets of transport mode into their device by policy routing. Their destination is the tunnel's own other
 * end, so routes alone would lead the tunnel into itself:
 *
 * ```text
 *   6990  to the peer, ESP, or UDP from a port of IKE   goto 6992     (the tunnel's own)
 *   6991  from here to the peer, protocol, ports        table of the tunnel
 *   6992                                                nop
 * ```
 *
 * The table leads into the device, and is unreachable without it: nothing is sent unprotected when the daemon has died.
 * By protocol and ports, not by marks of the sockets: incoming packets of the tunnel have none, and a strict reverse path
 * filter (rp_filter) would drop them.
 */
import { addressBits, formatAddress, type IpAddress, sameAddress } from '../base/address.ts';
import { Protocol } from '../policy/protocols.ts';
import {
  describeRule,
  type HostNetwork,
  type Prefix,
  type Route,
  type Rule,
  removeOwn,
  sameRule,
} from '../tun/routes.ts';
import type { TransportPlan } from './platform.ts';

const PRIORITY = { own: 6990, lead: 6991, end: 6992, bridge: 6993, bridgeEnd: 6994 } as const;
/** Of the route for when there is no device: the last that is looked at. */
const LAST_METRIC = 0xffff_ffff;

/** IKE may be met there whatever a document says, and routes are asked for as its packets would be. */
export const OWN_QUERY: { readonly ipProtocol: number; readonly sourcePort: number } = {
  ipProtocol: Protocol.udp,
  sourcePort: 500,
};

export class Steering {
  readonly #network: HostNetwork;
  /** Rules that several tunnels may need, with their number. BOUNDED: by the tunnels. */
  readonly #shared: { readonly rule: Rule; users: number }[] = [];
  /** Tables that are led into. BOUNDED: by the tunnels. */
  readonly #tables = new Set<number>();

  constructor(network: HostNetwork) {
    this.#network = network;
  }

  /**
   * Leads packets into a device. Returns how to undo it.
   * @throws Error, with nothing changed, when the system refuses
   */
  lead(plan: TransportPlan, linkIndex: number): () => void {
    const { local, remote, table } = plan;
    if (!this.#network.addresses().some(({ address }) => sameAddress(address, local))) {
      throw new Error(
        `transport mode is for packets of ${formatAddress(local)}, which is not an address of this host: add it, or correct the document`,
      );
    }
    if (this.#tables.has(table)) {
      throw new Error(`routing table ${table} is that of another tunnel: give this one a <device table='…'>`);
    }
    const undo: (() => void)[] = [];
    try {
      // The tunnel's own packets first: its rules would catch them.
      for (const rule of [endRule(plan), ...ownRules(plan)]) undo.push(this.#share(rule));
      const destination = hostPrefix(remote);
      const closed: Route = { type: 'unreachable', destination, table, metric: LAST_METRIC };
      const open: Route = { type: 'unicast', destination, table, linkIndex, source: local };
      for (const route of [closed, open]) {
        this.#network.addRoute(route);
        undo.push(() => void this.#network.deleteRoute(route));
      }
      for (const rule of leadRules(plan)) {
        this.#network.addRule(rule);
        undo.push(() => void this.#network.deleteRule(rule));
      }
      this.#removeStale(plan);
      this.#tables.add(table);
    } catch (error) {
      for (const step of undo.reverse()) step();
      throw error;
    }
    // Rules before routes: never a rule into a table that is open.
    return () => {
      this.#tables.delete(table);
      for (const step of undo.reverse()) step();
      removeOwn(this.#network, [table]);
    };
  }

  /** Leads what comes in by a bridge into a table, and nowhere else. */
  leadBridge(bridge: string, table: number): () => void {
    const undo: (() => void)[] = [];
    try {
      // The end first: what is led in has no other way, not for a moment.
      for (const rule of bridgeRules(bridge, table)) {
        this.#network.addRule(rule);
        undo.push(() => void this.#network.deleteRule(rule));
      }
      this.#forget((rule) => rule.inputLink === bridge && rule.action.type === 'table' && rule.action.table !== table);
    } catch (error) {
      for (const step of undo.reverse()) step();
      throw error;
    }
    return () => {
      for (const step of undo.splice(0).reverse()) step();
    };
  }

  forgetBridges(keep: readonly string[]): void {
    this.#forget(({ inputLink }) => inputLink !== undefined && !keep.includes(inputLink));
  }

  /** Of rules of bridges. */
  #forget(fits: (rule: Rule) => boolean): void {
    for (const rule of this.#network.rules()) {
      const { priority } = rule;
      if (priority !== PRIORITY.bridge && priority !== PRIORITY.bridgeEnd) continue;
      if (fits(rule)) this.#network.deleteRule(rule);
    }
  }

  #share(rule: Rule): () => void {
    let entry = this.#shared.find((other) => sameRule(other.rule, rule));
    if (entry === undefined) {
      this.#network.addRule(rule);
      entry = { rule, users: 0 };
      this.#shared.push(entry);
    }
    const shared = entry;
    shared.users++;
    return () => {
      if (--shared.users > 0) return;
      this.#shared.splice(this.#shared.indexOf(shared), 1);
      this.#network.deleteRule(rule);
    };
  }

  /** Of the same tunnel, when a daemon died and its document was changed since. */
  #removeStale(plan: TransportPlan): void {
    const wanted = leadRules(plan).map(describeRuleFully);
    for (const rule of this.#network.rules()) {
      if (rule.action.type !== 'table' || rule.action.table !== plan.table || rule.priority !== PRIORITY.lead) continue;
      if (!wanted.includes(describeRuleFully(rule))) this.#network.deleteRule(rule);
    }
  }
}

function describeRuleFully(rule: Rule): string {
  const ports = [rule.sourcePorts, rule.destinationPorts].map((range) => `${range?.start}-${range?.end}`);
  return [describeRule(rule), rule.ipProtocol, ...ports].join(' ');
}

function bridgeRules(bridge: string, table: number): Rule[] {
  return ([4, 6] as const).flatMap((family): Rule[] => [
    { family, priority: PRIORITY.bridgeEnd, inputLink: bridge, action: { type: 'unreachable' } },
    { family, priority: PRIORITY.bridge, inputLink: bridge, action: { type: 'table', table } },
  ]);
}

function hostPrefix(address: IpAddress): Prefix {
  return { address, prefixLength: addressBits(address.family) };
}

function endRule({ remote: { family } }: TransportPlan): Rule {
  return { family, priority: PRIORITY.end, action: { type: 'nop' } };
}

function ownRules({ remote, ownPorts }: TransportPlan): Rule[] {
  const common = {
    family: remote.family,
    priority: PRIORITY.own,
    to: hostPrefix(remote),
    action: { type: 'goto', priority: PRIORITY.end },
  } as const;
  const ports = new Set([OWN_QUERY.sourcePort, ...ownPorts]);
  return [
    { ...common, ipProtocol: Protocol.esp },
    ...[...ports].map((port) => ({ ...common, ipProtocol: Protocol.udp, sourcePorts: { start: port, end: port } })),
  ];
}

/**
 * In IPv4 a socket that is not bound has no source yet when its route is looked up, and gets that of the route. In IPv6
 * a rule with a source never fits such a socket, so there all sources are led into the device, and dropped there when
 * they are not the one.
 */
function leadRules({ local, remote, flows, table }: TransportPlan): Rule[] {
  const { family } = remote;
  const sources = family === 4 ? [hostPrefix(local), hostPrefix({ family, value: 0n })] : [undefined];
  return flows.flatMap(({ protocol, sourcePorts, destinationPorts }) =>
    sources.map((from) => ({
      family,
      priority: PRIORITY.lead,
      from,
      to: hostPrefix(remote),
      ipProtocol: protocol,
      sourcePorts,
      destinationPorts,
      action: { type: 'table', table },
    })),
  );
}

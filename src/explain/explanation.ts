/** What `sectunnel explain` answers: plain JSON, addresses and selectors as text. */

/** What to explain. Ports are numbers of 16 bits. */
export interface ExplainQuestion {
  /** A tunnel's name or UUID. */
  readonly name: string;
  /** `10.1.0.1`, `10.1.0.1:5000`, `fd00::1`, `[fd00::1]:5000`. */
  readonly src: string;
  readonly dst: string;
  /** By name or number. */
  readonly proto: string;
  /** As seen from this host; `out` when left out. */
  readonly direction?: string | undefined;
  /** Of ICMP and ICMPv6, 0 to 255; an echo request when left out. */
  readonly type?: number | undefined;
  readonly code?: number | undefined;
}

/**
 * `protected`: goes through an SA that is there; `held`: waits while one is negotiated; `bypassed`: goes in the clear, as
 * the policy says; `dropped`: is not carried, or none of the tunnel's business; `not-applied`: the policy says one thing,
 * and this host does another; `unsure`: something that could not be judged, or not be looked at, may stop it.
 */
export type Outcome = 'protected' | 'held' | 'bypassed' | 'dropped' | 'not-applied' | 'unsure';

export interface Explanation {
  readonly name: string;
  readonly active: boolean;
  readonly direction: 'in' | 'out';
  /** `udp 10.1.0.1:5000 > 10.2.0.1:53` */
  readonly packet: string;
  /** What was not said of the packet, and is taken for granted. */
  readonly assumed: readonly string[];
  readonly outcome: Outcome;
  /** What happens to the packet, in a sentence. */
  readonly verdict: string;
  readonly policy: PolicyExplanation;
  /** Of a packet that is to be protected. */
  readonly sa: SaExplanation | undefined;
  /** Which way the packet takes on this host; `undefined` where the host's routing cannot be asked. */
  readonly route: RouteExplanation | undefined;
  /** Tunnels of this host whose policies are for it, in the order in which rules ask them; empty for one alone. */
  readonly tunnels: readonly TunnelSay[];
  /** What the tunnel's fence does with it where it is met in the clear; `undefined` while none stands. */
  readonly fence: FenceExplanation | undefined;
  /** What another part of our fence does with it on its way, a network's or another tunnel's. */
  readonly otherFence: string | undefined;
  /** What other programs' nftables rules do; `undefined` where they were not asked. */
  readonly filters: FilterExplanation | undefined;
  readonly warnings: readonly string[];
}

export interface NamedEntry {
  readonly name: string;
  /** In the document as `dumpxml` prints it. */
  readonly line: number | undefined;
}

export interface PolicyExplanation {
  readonly decision: string;
  readonly action: 'protect' | 'bypass' | 'discard' | 'none';
  /** The entry that decides. */
  readonly entry: (NamedEntry & { readonly priority: number; readonly level: string | undefined }) | undefined;
  /** Entries that were asked before without a match, and why each did not match: those that come closest. */
  readonly before: readonly (NamedEntry & { readonly why: readonly string[] })[];
  /** Those that are not listed included. */
  readonly beforeCount: number;
  /** Entries behind it that match too and are not asked. */
  readonly shadowed: readonly NamedEntry[];
  readonly shadowedCount: number;
}

export interface SaExplanation {
  /** How the packet fares for SAs. */
  readonly text: string;
  /** The SA that carries it. */
  readonly carries: CarryingSa | undefined;
}

export interface CarryingSa {
  readonly id: number;
  readonly child: string;
  readonly mode: 'tunnel' | 'transport';
  /** Of the packet's direction: eight hexadecimal digits. */
  readonly spi: string;
  readonly suite: string;
  readonly esn: boolean;
  /** As agreed: `LOCAL === REMOTE`. */
  readonly selectors: string;
  /** Where its packets go to, or come from. */
  readonly peer: string;
}

export interface FenceExplanation {
  /** `own`: IKE or ESP between the ends of the tunnel, which passes whatever the policy says. */
  readonly action: 'guard' | 'pass' | 'discard' | 'own';
  readonly text: string;
}

export interface RouteExplanation {
  readonly text: string;
  /** The link by which it leaves; `undefined` when there is no way, or it is for this host. */
  readonly link: string | undefined;
  readonly gateway: string | undefined;
  readonly table: number | undefined;
  /** As `ip rule` prints it. */
  readonly rule: string | undefined;
  /** Whether it leaves by the tunnel's device. */
  readonly reachesTunnel: boolean;
}

export interface TunnelSay {
  readonly name: string;
  /** `protected by 'lan'` */
  readonly decision: string;
  /** The packet leaves by its device. */
  readonly gets: boolean;
}

/** As for the first packet of a flow. */
export interface FilterExplanation {
  /** Chains that the packet passes. */
  readonly asked: number;
  /** What rules do with it, in the order of its way. */
  readonly found: readonly FilterFinding[];
  /** Those that are not listed included. */
  readonly foundCount: number;
  /** What was not looked at and might stop it: a phrase each. */
  readonly unread: readonly string[];
}

export interface FilterFinding {
  readonly hook: 'prerouting' | 'input' | 'forward' | 'output' | 'postrouting';
  readonly effect: 'drop' | 'source' | 'destination' | 'mark';
  /** False where it depends on what is not known. */
  readonly certain: boolean;
  /** `inet filter` */
  readonly table: string;
  readonly chain: string;
  /** As nft prints it. */
  readonly rule: string;
  /** A rule that may let the packet go before it comes there. */
  readonly unless: string | undefined;
  /** New address, where the rule says which. */
  readonly to: string | undefined;
}

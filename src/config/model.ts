/**
 * A `<sectunnel>` document as plain, normalised data: all spellings resolved, all defaults filled in (from
 * `defaults.ts`), the seed's short and flat forms turned into the full form.
 *
 * Durations are seconds, as they stand in a document. A `line` is that of the start tag in the text that was parsed;
 * it is for messages and is no part of the meaning.
 */
import type { AddressRange, IpAddress } from '../base/address.ts';
import type { EspProposal, IkeProposal } from '../crypto/proposal.ts';
import type { PortRange } from '../policy/selector.ts';

/**
 * A `<sectunnel>` document with every default filled in; `docs/document.md` describes each element. Made by
 * `parseDocument`.
 */
export interface SectunnelDocument {
  readonly type: 'ipsec';
  readonly name: string;
  /** Lower case, with hyphens. */
  readonly uuid: string;
  readonly title: string | undefined;
  readonly description: string | undefined;
  /** The XML of each element in `<metadata>`, complete with its namespace declarations. */
  readonly metadata: readonly string[];
  readonly device: DeviceSettings;
  readonly sa: SaSettings;
  /** In document order. Higher `priority` goes first, then document order. */
  readonly sps: readonly SecurityPolicy[];
}

/** The `<device>` element: the TUN device of the tunnel. */
export interface DeviceSettings {
  readonly name: string;
  /** What fits the path to the peer when the tunnel starts, when left out. */
  readonly mtu: number | undefined;
  /** Routing table; that of the tunnel's own choice when left out. */
  readonly table: number | undefined;
  readonly netns: string | undefined;
  readonly vrf: string | undefined;
  readonly routes: 'auto' | 'none';
  /** `block`: all IPv6 that no policy is for is discarded. */
  readonly ipv6: 'pass' | 'block';
}

/** The `<sa>` element: the ends, how they authenticate, and the parameters of IKE and ESP. */
export interface SaSettings {
  /** The routing domain of IKE and ESP; the default one when left out. */
  readonly vrf: string | undefined;
  readonly local: PeerSettings;
  readonly remote: PeerSettings;
  /** At most one covers each side; none is missing when a policy says `ipsec`. */
  readonly auths: readonly AuthSettings[];
  readonly ike: IkeSettings;
  readonly esp: EspSettings;
  readonly redundancy: RedundancySettings | undefined;
}

/** Tunnels of a group may protect the same packets: the one of them that is up and preferred carries them. */
export interface RedundancySettings {
  readonly group: string;
  /** 0 to 255; the highest is preferred. */
  readonly preference: number;
  readonly line: number;
}

/**
 * The `address` of `<local>` or `<remote>`: any, an IP address, or a name that is resolved when the tunnel starts.
 */
export type PeerAddress =
  | { readonly kind: 'any' }
  | { readonly kind: 'ip'; readonly address: IpAddress }
  | { readonly kind: 'fqdn'; readonly name: string };

/** A `<local>` or `<remote>` element: one end of the IKE SA. */
export interface PeerSettings {
  readonly address: PeerAddress;
  /**
   * UDP port of IKE: 500, or a port that carries IKE and ESP together, with the non-ESP marker, from the first
   * packet (RFC 3948 §2.2).
   */
  readonly port: number;
  /** That of the address where none is given; `undefined` where there is no address either. */
  readonly id: IdentityText | undefined;
  readonly line: number;
}

/** The `type` of an `<id>` element. */
export type IdentityKind = 'address' | 'fqdn' | 'email' | 'dn' | 'keyid';

/** An `<id>` element, as it is written. */
export interface IdentityText {
  readonly type: IdentityKind;
  readonly text: string;
}

/** Which secret holds a pre-shared key or pass phrase: by its UUID, or by the usage that it is found by. */
export type SecretReference =
  | { readonly by: 'uuid'; readonly uuid: string }
  | { readonly by: 'usage'; readonly usage: string };

/** Which end an `<auth>` element is about. */
export type AuthSide = 'both' | 'local' | 'remote';

/** An `<auth>` element: how one end, or both, authenticate. */
export type AuthSettings =
  | { readonly type: 'psk'; readonly side: AuthSide; readonly secret: SecretReference; readonly line: number }
  | { readonly type: 'x509'; readonly side: AuthSide; readonly x509: X509Settings; readonly line: number };

/** `strict`: a certificate of which nothing is known, from lists or by OCSP, is refused. */
export type RevocationPolicy = 'strict' | 'ifpresent';

/** Where the certificates of `<auth type='x509'>` are, and how revocation is handled. */
export interface X509Settings {
  /** Whose certificate: that of libvirt's TLS server, of its client, or the files that are named. */
  readonly source: 'server' | 'client' | 'file';
  readonly pkipath: string | undefined;
  readonly ca: string | undefined;
  readonly cert: string | undefined;
  readonly key: { readonly file: string; readonly secret: SecretReference | undefined } | undefined;
  /** Revocation lists: of a file, or where libvirt has them; and if `fetch`, from where a certificate says. */
  readonly crl:
    | { readonly file: string | undefined; readonly fetch: boolean; readonly policy: RevocationPolicy }
    | undefined;
  /** OCSP responders that a certificate names are asked. */
  readonly ocsp: { readonly policy: RevocationPolicy } | undefined;
  /** Patterns over the peer's distinguished name; empty for any. */
  readonly allow: readonly string[];
  /** Whether a common name proves a host name where the certificate has no alternative name. */
  readonly commonName: boolean;
  /** Whether SHA-1 is taken in certificates, and used with peers that have nothing better (RFC 7296 §3.8). */
  readonly sha1: boolean;
}

/** Seconds. `soft` begins a rekey, `hard` ends the SA; each SA subtracts a random part of `jitter` from `soft`. */
export interface LifetimeSettings {
  readonly soft: number;
  readonly hard: number;
  readonly jitter: number;
}

/** The `<ike>` element. Durations are seconds, as in the document. */
export interface IkeSettings {
  readonly version: 2;
  readonly start: 'initiate' | 'trap' | 'respond';
  readonly proposals: readonly IkeProposal[];
  readonly lifetime: LifetimeSettings;
  readonly dpd: { readonly interval: number; readonly action: 'clear' | 'trap' | 'restart' };
  /** Bytes of the largest IP packet that a message goes in (RFC 7383); 0 for messages in one piece alone. */
  readonly fragmentSize: number;
  readonly nat: NatSettings;
  readonly line: number;
}

/** How NATs are traversed (RFC 3947, RFC 3948). */
export interface NatSettings {
  readonly traversal: 'auto' | 'force' | 'off';
  /**
   * When ESP is sent in UDP (RFC 3948); otherwise it is IP protocol 50. `needed`: when a NAT is detected. It is `always` with
   * `force`, `never` with `off`, and one of `always` and `needed` with `auto`.
   */
  readonly encapsulation: 'always' | 'needed' | 'never';
  /** UDP port that is moved to from 500. */
  readonly port: number;
  /** Seconds; 0 for none. */
  readonly keepalive: number;
}

/** The `<esp>` element. */
export interface EspSettings {
  readonly proposals: readonly EspProposal[];
  readonly lifetime: LifetimeSettings & { readonly bytes: bigint | undefined; readonly packets: bigint | undefined };
  readonly replayWindow: number;
  /** DSCP of outer headers, 0 to 63; `undefined`: that of the packet inside is copied. */
  readonly dscp: number | undefined;
  readonly tfc: TfcSettings;
  readonly line: number;
}

/** Traffic flow confidentiality (RFC 4303 §2.6, §2.7). */
export interface TfcSettings {
  /** Of packets inside: to a multiple of `size`, to `size`, to as much as the path takes. */
  readonly padding: 'none' | 'multiple' | 'fixed' | 'mtu';
  /** Bytes; `undefined` with `none` and `mtu`. */
  readonly size: number | undefined;
  /** Dummy packets a second on average, while nothing else is sent; 0 for none. */
  readonly dummies: number;
}

/**
 * An `<sp>`: packets, and what happens to them. The ranges are the source and destination of packets in the direction
 * of the policy: outbound ones for `out` and `both` (which holds for the mirrored inbound packets as well), inbound ones
 * for `in`. A policy with action `ipsec` is always `both`: a pair that is written out is joined while parsing.
 */
export interface SecurityPolicy {
  readonly name: string;
  readonly priority: number;
  readonly srcRanges: readonly PacketRange[];
  readonly dstRanges: readonly PacketRange[];
  readonly upperspec: UpperSpec;
  /** Each direction at most once. */
  readonly policies: readonly PolicySettings[];
  readonly line: number;
}

/** A `<src_range>` or `<dst_range>`: addresses, and the ports that are selectors. */
export interface PacketRange {
  readonly range: AddressRange;
  /** Both ends included; `ANY_PORTS` where none are given. */
  readonly ports: PortRange;
  /** The proposed selector is narrowed to the packet's own value ("populate from packet", RFC 4301 §4.4.1). */
  readonly pfp: boolean;
}

/** The `<upperspec>` element: the protocol above IP that the policy is for. */
export interface UpperSpec {
  /** 0 for any. */
  readonly protocol: number;
  /** ICMP and ICMPv6 only. */
  readonly icmpType: number | undefined;
  readonly icmpCode: number | undefined;
  readonly pfp: boolean;
}

/** A `<policy>` element: what becomes of the packets of its `<sp>`. */
export type PolicySettings =
  | {
      /** `both` once parsed. */
      readonly direction: PolicyDirection;
      readonly action: 'ipsec';
      readonly rule: RuleSettings;
      readonly line: number;
    }
  | { readonly direction: PolicyDirection; readonly action: 'none' | 'discard'; readonly line: number };

/** The `direction` of a `<policy>`. */
export type PolicyDirection = 'in' | 'out' | 'both';

/** `ah`, `ipcomp` and more than one rule are refused while parsing. `src` is the local end: see `SecurityPolicy`. */
export interface RuleSettings {
  readonly protocol: 'esp';
  readonly mode: 'tunnel' | 'transport';
  readonly level: RuleLevel;
  readonly src: EndPoint;
  readonly dst: EndPoint;
  readonly line: number;
}

/** `group` is setkey's number behind `unique:`: policies that give the same one share an SA. */
export type RuleLevel =
  | { readonly kind: 'use' | 'require' }
  | { readonly kind: 'unique'; readonly group: number | undefined };

/** The `<src>` or `<dst>` of a rule: an outer address, and the UDP port of encapsulation. */
export interface EndPoint {
  readonly address: PeerAddress;
  /** UDP encapsulation port, for IKE and ESP both. */
  readonly port: number | undefined;
}

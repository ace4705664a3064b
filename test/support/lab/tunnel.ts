/**
 * A tunnel between two hosts, told once: each implementation's configuration is generated from it, seen from its
 * own end.
 */

export interface LabIdentity {
  readonly type: 'address' | 'fqdn' | 'email' | 'dn' | 'keyid';
  readonly value: string;
}

export interface TunnelEnd {
  /** Outer address, or `any` at an end that the other cannot name (behind a NAT). */
  readonly address: string;
  readonly id: LabIdentity;
  /** Inner prefixes, as `10.1.0.0/24`, with `[protocol/port]` behind where they are narrower than that. */
  readonly inner: readonly string[];
  /** Pre-shared key of this end's configuration. */
  readonly psk: string;
}

/** Names as strongSwan writes them, without the `prf` prefix. */
export interface IkeSuite {
  readonly encryption: string;
  readonly integrity?: string;
  readonly prf: string;
  readonly dh: string;
}

export interface EspSuite {
  readonly encryption: string;
  readonly integrity?: string;
  /** A key exchange of each CHILD SA's own. */
  readonly dh?: string;
  /** What is offered; `either` offers both. */
  readonly esn: 'yes' | 'no' | 'either';
}

export interface Tunnel {
  readonly name: string;
  readonly left: TunnelEnd;
  readonly right: TunnelEnd;
  readonly ike: IkeSuite;
  readonly esp: EspSuite;
  /** UDP port of both ends that carries IKE and ESP together; without it 500 and 4500. */
  readonly port?: number;
  /** Encapsulate in UDP although there is no NAT. Default: true. */
  readonly forceEncapsulation?: boolean;
  /** ESP straight over IP where there is no NAT: when none is found (`needed`), or without looking for one (`never`). */
  readonly encapsulation?: 'needed' | 'never';
  /** Transport mode, for one protocol or for `any`; the inner prefixes are then the ends' own addresses. */
  readonly transport?: string;
  /** What strongSwan pads its packets to; we are told in a document. */
  readonly tfcPadding?: number | 'mtu';
  /** Seconds without a packet until the other end is asked whether it lives; 0 for never, the default. */
  readonly dpd?: number;
  readonly dpdAction?: 'clear' | 'restart';
}

export type Side = 'left' | 'right';

/** The two ends, own one first. */
export function ends(tunnel: Tunnel, side: Side): { readonly local: TunnelEnd; readonly remote: TunnelEnd } {
  return side === 'left' ? { local: tunnel.left, remote: tunnel.right } : { local: tunnel.right, remote: tunnel.left };
}

/** One CHILD SA as either implementation reports it, from that implementation's own side. */
export interface ChildReport {
  readonly spiIn: string;
  readonly spiOut: string;
  readonly bytesIn: number;
  readonly bytesOut: number;
  readonly packetsIn: number;
  readonly packetsOut: number;
}

export interface IkeReport {
  readonly initiatorSpi: string;
  readonly responderSpi: string;
  readonly established: boolean;
  readonly children: readonly ChildReport[];
}

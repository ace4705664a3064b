/** A packet as rules of nftables see it at a hook. */
import type { IpAddress } from '../../base/address.ts';

/** The first packet of its flow: connection tracking calls it new. */
export interface HookPacket {
  readonly source: IpAddress;
  readonly destination: IpAddress;
  readonly protocol: number;
  readonly sourcePort: number | undefined;
  readonly destinationPort: number | undefined;
  /** Of ICMP and ICMPv6. */
  readonly icmpType: number | undefined;
  readonly icmpCode: number | undefined;
  /** The link that it came by; empty for the host's own. */
  readonly inputLink: string;
  /** The link that it leaves by; empty while that is not decided, and for what is delivered. */
  readonly outputLink: string;
  /** `undefined` when a rule may have set it. */
  readonly mark: number | undefined;
  /** Whether its destination was replaced before; `undefined` when a rule may have. */
  readonly redirected: boolean | undefined;
  /** Whether the destination is an address of this host. */
  readonly toHost: boolean;
}

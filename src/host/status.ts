/** What `sectunnel status` reports: plain JSON, ages in seconds, addresses and selectors as text. */

export interface ChildStatus {
  readonly id: number;
  /** Name of the rule in the document that it serves. */
  readonly name: string;
  readonly mode: 'tunnel' | 'transport';
  /** `aes256gcm16-x25519` */
  readonly suite: string;
  readonly esn: boolean;
  readonly encapsulated: boolean;
  /** Hexadecimal, eight digits. */
  readonly spiIn: string;
  readonly spiOut: string;
  readonly localSelectors: readonly string[];
  readonly remoteSelectors: readonly string[];
  /** Whether the peer narrowed what the document asks for. */
  readonly narrowed: boolean;
  /** What of it is not carried: `remote 10.2.0.128/25`. */
  readonly narrowedAway: readonly string[];
  readonly age: number;
  readonly rekeyIn: number | undefined;
  readonly expiresIn: number | undefined;
  /** Inner bytes and packets. */
  readonly bytesIn: number;
  readonly packetsIn: number;
  readonly bytesOut: number;
  readonly packetsOut: number;
  /** Dummy packets (RFC 4303 §2.6), which count nowhere else. */
  readonly dummiesIn: number;
  readonly dummiesOut: number;
  /** Packets that routers marked as having met congestion on their way here, and that go on so (RFC 6040 §4.2). */
  readonly ecnMarked: number;
  /** Packets whose inner and outer ECN no tunnel makes: something on the path is broken, or worse. */
  readonly ecnUnexpected: number;
}

/**
 * An IKE SA of a tunnel, with its CHILD SAs. Ages and remaining times are seconds; SPIs are 16 hexadecimal digits.
 */
export interface IkeStatus {
  readonly id: number;
  readonly state: string;
  readonly initiator: boolean;
  readonly spiInitiator: string;
  readonly spiResponder: string;
  readonly localId: string;
  readonly remoteId: string | undefined;
  readonly local: string;
  readonly remote: string;
  readonly suite: string | undefined;
  /** Which side is behind a NAT, as detected. */
  readonly nat: 'none' | 'local' | 'remote' | 'both';
  readonly age: number;
  /** Seconds since an authentic message or packet of the peer came. */
  readonly lastHeard: number | undefined;
  /** Our request that has no response yet: how often it was sent, and for how many seconds it has been waiting. */
  readonly unanswered: { readonly sent: number; readonly seconds: number } | undefined;
  readonly rekeyIn: number | undefined;
  readonly children: readonly ChildStatus[];
}

/** Who carries packets: worker threads, or the event loop (`inline`), and then why. */
export interface WorkersStatus {
  readonly mode: string;
  readonly threads: readonly {
    readonly role: 'send' | 'receive';
    readonly running: boolean;
    /** How often another had to take its place. */
    readonly restarts: number;
    /** Seconds of processor time. */
    readonly cpu: number;
  }[];
}

/** The last negotiation that failed. Its age is in seconds. */
export interface FailureStatus {
  readonly secondsAgo: number;
  readonly reason: string;
  /** What was offered, wanted and found; lines. */
  readonly detail: string;
  /** What of the document has a say in it: lines as `dumpxml` prints them. */
  readonly inDocument: readonly string[];
}

/** The secret of a tunnel's pre-shared key, as it was found the last time that it was needed. */
export interface SecretStatus {
  /** Its UUID, or the usage that it is found by. */
  readonly name: string;
  /** Who keeps it; `undefined` when it could not be read. */
  readonly source: 'sectunnel' | 'libvirt' | undefined;
  /** Why it could not be read, and what to do. */
  readonly problem: string | undefined;
}

/** A tunnel's device, which others may share. */
export interface DeviceStatus {
  readonly name: string;
  /** Bytes. */
  readonly mtu: number;
  /** How many tunnels have it. */
  readonly tunnels: number;
  /** What a device of several tunnels lost, by reason: packets that are for none of them, and what none counts as its own. */
  readonly drops: Readonly<Record<string, number>>;
}

/** What `sectunnel status` reports of a tunnel: plain data. Ages and remaining times are seconds. */
export interface TunnelStatus {
  readonly name: string;
  readonly uuid: string;
  readonly active: boolean;
  /**
   * `inactive`: not started; `up`: every rule has an SA; `connecting`: being negotiated, or waiting for the next try;
   * `partial`: some rules have an SA; `waiting`: for traffic or for the peer, as its `start` says.
   */
  readonly state: 'inactive' | 'waiting' | 'connecting' | 'partial' | 'up';
  readonly device: DeviceStatus | undefined;
  /** What of fence, rules and routes another program took and could not be put back, or stands in the way; a sentence each. */
  readonly degraded: readonly string[];
  /** CHILD SAs that have sent packets and never received one, a sentence each; no fault where traffic flows one way only. */
  readonly nothingReceived: readonly string[];
  /** `carrier`: the tunnel of the group by which packets go. `undefined` where it is in none, or does not run. */
  readonly redundancy: { readonly group: string; readonly preference: number; readonly carrier: string } | undefined;
  /** `undefined` while the tunnel does not run, and with certificates. */
  readonly secret: SecretStatus | undefined;
  /** What the peer asked for and cannot have, since the tunnel was started: `a virtual address (…), which is not supported: …`. */
  readonly declined: readonly string[];
  readonly ikeSas: readonly IkeStatus[];
  /** Packets that were not carried, by reason. */
  readonly drops: Readonly<Record<string, number>>;
  readonly lastFailure: FailureStatus | undefined;
  /** Seconds to the next attempt, while one is planned. */
  readonly retryIn: number | undefined;
}

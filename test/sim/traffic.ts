/** The packets of a simulation: each has a number, arrives once at most, and never shows on the network between. */
import { utf8 } from '../../src/base/text.ts';
import { HUB } from './ends.ts';
import { demand } from './failure.ts';
import type { SimHost } from './host.ts';
import type { Name } from './scenario.ts';

/** Milliseconds after which a packet that is owed must have arrived. */
const WORDS = 'what nobody may read';
const WORDS_BYTES = Buffer.from(utf8(WORDS));

interface Sent {
  readonly from: Name;
  readonly to: Name;
  readonly at: number;
  /** It must arrive. */
  readonly isOwed: boolean;
}

export class Traffic {
  readonly #hosts: ReadonlyMap<Name, SimHost>;
  readonly #sent: Sent[] = [];
  readonly #arrived = new Set<number>();
  /** Children that were up at both ends: `s1c`. */
  readonly #wereUp = new Set<string>();
  #owing = false;

  constructor(hosts: ReadonlyMap<Name, SimHost>) {
    this.#hosts = hosts;
  }

  get sent(): number {
    return this.#sent.length;
  }

  get arrived(): number {
    return this.#arrived.size;
  }

  /** The text of the next packet. @param size of the packet with its headers, at least */
  newPacket({ size, isOwed, ...sent }: Sent & { readonly size: number }): string {
    const text = `${this.#sent.length} ${WORDS}`;
    this.#sent.push({ ...sent, isOwed: isOwed || this.#owing });
    return text.padEnd(size - HEADERS, '.');
  }

  /** A host goes away: what was sent to it since, and has not arrived, may be lost. */
  excuse(host: Name, since: number): void {
    for (let number = this.#sent.length - 1; number >= 0 && this.#sent[number]!.at >= since; number--) {
      const sent = this.#sent[number]!;
      if (sent.to === host) this.#sent[number] = { ...sent, isOwed: false };
    }
  }

  /** What is sent by it must arrive. */
  owe(send: () => void): void {
    this.#owing = true;
    send();
    this.#owing = false;
  }

  /** Whether a child of a spoke was up at both ends at some time. */
  wasUp(spoke: Name, child: number): boolean {
    const name = `${spoke}${'cd'[child]}`;
    const hosts = [HUB, spoke].map((host) => this.#hosts.get(host)!);
    if (hosts.every(({ children }) => [...children.values()].includes(name))) this.#wereUp.add(name);
    return this.#wereUp.has(name);
  }

  /** Reads what came out. @throws SimFailure for what came twice, or elsewhere than where it was sent */
  look(): void {
    for (const { name: host, peer } of this.#hosts.values()) {
      for (const texts of peer.delivered.values()) for (const text of texts.splice(0)) this.#take(host, text);
    }
  }

  #take(host: Name, text: string): void {
    const number = Number.parseInt(text, 10);
    const sent = this.#sent[number];
    demand(sent !== undefined && text.includes(WORDS), () => `${host} got what nobody sent: ${text}`);
    demand(sent!.to === host, () => `${host} got packet ${number}, which ${sent!.from} sent to ${sent!.to}`);
    demand(!this.#arrived.has(number), () => `${host} got packet ${number} twice`);
    this.#arrived.add(number);
  }

  /** @throws SimFailure when a datagram shows what is inside */
  checkCovered(data: Uint8Array): void {
    demand(
      Buffer.from(data.buffer, data.byteOffset, data.length).indexOf(WORDS_BYTES) < 0,
      () => 'clear text on the network',
    );
  }

  /** @throws SimFailure when a packet is lost that must not be */
  checkOwed(): void {
    const lost = this.#sent.flatMap(({ isOwed }, number) => (isOwed && !this.#arrived.has(number) ? [number] : []));
    const first = this.#sent[lost[0] ?? 0];
    demand(
      lost.length === 0,
      () => `${lost.length} packets were lost, the first at ${first!.at / 1_000} s from ${first!.from} to ${first!.to}`,
    );
  }
}

/** IP and UDP. */
const HEADERS = 28;

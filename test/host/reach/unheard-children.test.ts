/** CHILD SAs by which packets are sent and none comes: told once, shown, and gone with the first packet. */
import { describe, expect, it } from 'vitest';
import { NO_PORT, parseAddress, type SocketAddress } from '../../../src/base/address.ts';
import type { PeerRouteReport } from '../../../src/host/reach/peer-routes.ts';
import { type ChildTarget, newest, UnheardChildren } from '../../../src/host/reach/unheard-children.ts';

const end = (address: string, port: number): SocketAddress => ({ address: parseAddress(address)!, port });
const inUdp = { local: end('192.0.2.1', 4500), remote: end('192.0.2.2', 4500) };
const overIp = { local: end('192.0.2.1', NO_PORT), remote: end('192.0.2.2', NO_PORT) };

const IN_UDP =
  "CHILD SA #1 lan has sent 3 packets and never received one, while IKE works; unless its traffic flows one way only, check that 192.0.2.2 sends and accepts ESP in UDP (its encapsulation setting), firewalls pass it (192.0.2.1:4500 to 192.0.2.2:4500 and back), and that the peer forwards packets and replies; to see what arrives: tcpdump -ni any 'host 192.0.2.2 and (esp or udp port 4500)'";
const OVER_IP =
  "CHILD SA #1 lan has sent 3 packets and never received one, while IKE works; unless its traffic flows one way only, check that firewalls pass ESP (IP protocol 50) from 192.0.2.1 to 192.0.2.2 and back, or encapsulation='always' in <nat> here, and that the peer forwards packets and replies; to see what arrives: tcpdump -ni any 'host 192.0.2.2 and (esp or udp port 4500)'";
const BARE =
  "192.0.2.2 sends the ESP of CHILD SA #1 lan directly over IP (protocol 50), where it must go in UDP: the peer ignores that a NAT, or forced encapsulation, was detected (RFC 7296 §2.23); set its encapsulation to automatic, or, without a NAT on the path, encapsulation='needed' in <nat> here";

class Host {
  now = 0;
  targets: ChildTarget[] = [];
  reason = false;
  readonly reports: PeerRouteReport[] = [];
  readonly children = new UnheardChildren({
    targets: (name) => this.targets.filter(({ tunnel }) => tunnel === name),
    report: (report) => void this.reports.push(report),
    explained: () => this.reason,
  });

  child(change: Partial<ChildTarget> = {}): ChildTarget {
    const { id = 1 } = change;
    const sa = {
      tunnel: 'net',
      id,
      name: 'lan',
      traffic: 'lan a b',
      spiIn: 0x1000 + id,
      encapsulated: true,
      path: inUdp,
    };
    return { ...sa, sent: 3, heard: false, receivesBare: false, ...change };
  }

  /** Time passes with these SAs. */
  pass(seconds: number, ...targets: ChildTarget[]): void {
    this.targets = targets;
    const until = this.now + seconds * 1_000;
    for (; this.now < until; this.now += 2_500) this.children.check(this.now, newest(targets));
  }

  get told(): string[] {
    return this.reports.map(({ tunnel, level, event }) => `${tunnel} ${level} ${event}`);
  }
}

describe('a CHILD SA that sends and receives nothing', () => {
  it('is reported ten seconds after its first packet, once, and shown until a packet comes', () => {
    const host = new Host();
    host.pass(60, host.child({ sent: 0 }));
    host.pass(10, host.child());
    expect([host.told, host.children.of('net')]).toEqual([[], []]);
    host.pass(60, host.child());
    expect([host.reports[0]?.text, host.children.of('net')]).toEqual([IN_UDP, [IN_UDP]]);
    host.targets = [host.child({ heard: true })];
    expect(host.children.of('net')).toEqual([]);
    host.pass(5, host.child({ heard: true }));
    expect(host.told).toEqual(['net warn nothing-received', 'net info received']);
  });

  it('is not reported for two packets, nor while there is another reason, nor shown for another tunnel', () => {
    const host = new Host();
    host.pass(600, host.child({ sent: 2 }));
    host.reason = true;
    host.pass(600, host.child());
    expect([host.told, host.children.of('net')]).toEqual([[], []]);
    host.reason = false;
    host.pass(5, host.child());
    expect([host.told, host.children.of('other')]).toEqual([['net warn nothing-received'], []]);
    host.reason = true;
    expect(host.children.of('net')).toEqual([]);
  });

  it('is not reported again when it is rekeyed, and is heard when the SA that it replaces is', () => {
    const host = new Host();
    host.pass(20, host.child());
    host.pass(20, host.child(), host.child({ id: 2, sent: 0 }));
    host.pass(60, host.child({ id: 2, sent: 9 }));
    expect(host.told).toEqual(['net warn nothing-received']);
    expect(host.children.of('net')).toEqual([IN_UDP.replace('#1', '#2').replace('sent 3', 'sent 9')]);
    host.pass(60, host.child({ heard: true }), host.child({ id: 2 }));
    expect([host.told.slice(1), host.children.of('net')]).toEqual([['net info received'], []]);
  });

  it('is reported with protocol 50 where ESP goes directly over IP', () => {
    const host = new Host();
    host.pass(20, host.child({ encapsulated: false, path: overIp }));
    expect([host.children.of('net'), host.children.missing(newest(host.targets))]).toEqual([[OVER_IP], []]);
  });

  it('is reported at once, and once, when the peer sends its ESP directly over IP', () => {
    const host = new Host();
    host.pass(2.5, host.child());
    const [missing] = host.children.missing(newest(host.targets));
    host.children.cameBare(missing!);
    host.children.cameBare(missing!);
    expect([host.reports, host.children.of('net')]).toEqual([
      [{ tunnel: 'net', level: 'warn', text: BARE, event: 'nothing-received' }],
      [BARE],
    ]);
    host.pass(60, host.child());
    expect([host.told.length, host.children.missing(newest(host.targets))]).toEqual([1, []]);
  });
});

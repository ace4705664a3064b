/**
 * Packets that leave: the compiled policy decides as its explanation says, and nothing that must be protected leaves in
 * clear text. The first byte chooses the policy, the second the direction; the rest is the packet.
 */

import { PacketBatch } from '../../../src/base/batch.ts';
import { concatBytes } from '../../../src/base/bytes.ts';
import { BYPASS_TAG } from '../../../src/esp/outbound.ts';
import { compilePolicy, orderPolicy, type PolicyEntry } from '../../../src/policy/database.ts';
import { explainFlow, formatDecision } from '../../../src/policy/explain.ts';
import { Flow, FlowError, readFlow } from '../../../src/policy/flow.ts';
import { FlowCache } from '../../../src/policy/flow-cache.ts';
import { extension, icmp, packet, ports, sel } from '../../policy/helpers.ts';
import { enginePair, protect, tunnel } from '../../support/engine-net.ts';
import { isBetween } from '../between.ts';
import { holds, type Target } from '../target.ts';

function entry(
  action: PolicyEntry['action'],
  local: readonly string[],
  remote: readonly string[],
  priority = 0,
): PolicyEntry {
  const selectors = { local: local.map(sel), remote: remote.map(sel) };
  const to = action === 'protect' ? { child: 'c' } : {};
  return { name: action, direction: 'out', action, priority, selectors, level: 'require', ...to };
}

const POLICIES: readonly (readonly PolicyEntry[])[] = [
  [entry('protect', ['10.1.0.0/24'], ['10.2.0.0/24'])],
  [
    entry('bypass', ['10.1.0.0/24 icmp type 8'], ['10.2.0.0/24 icmp type 8'], 9),
    entry('discard', ['10.1.0.0/24 tcp 80'], ['10.2.0.0/24 tcp'], 5),
    entry('protect', ['10.1.0.0/16', 'fd01::/16'], ['10.2.0.0/16', 'fd02::/16']),
  ],
  [
    entry('bypass', ['10.1.0.0/24 udp 1-1024'], ['0.0.0.0/0 udp 53'], 3),
    entry('protect', ['10.1.0.0/24 udp opaque', 'fd01::/64 udp'], ['10.2.0.0/24 udp opaque', 'fd02::/64 udp']),
    entry('bypass', ['0.0.0.0/0', '::/0'], ['0.0.0.0/0', '::/0'], -5),
  ],
];

/** The same for both directions: local and remote are what they are. */
const COMPILED = POLICIES.map((entries) =>
  (['out', 'in'] as const).map((direction) => {
    const ordered = orderPolicy(
      entries.map((one) => ({ ...one, direction })),
      direction,
    );
    return { direction, entries: ordered, compiled: compilePolicy(ordered, direction), cache: new FlowCache() };
  }),
);

/** A pair of engines whose tunnel is up. */
const PAIR = (() => {
  const policy = [
    protect(),
    entry('discard', ['10.1.0.0/24 tcp 80'], ['10.2.0.0/24 tcp'], 5),
    entry('bypass', ['10.1.0.0/24'], ['10.3.0.0/24']),
  ];
  const made = enginePair({ a: tunnel({ start: 'initiate', policy }) });
  made.net.run(2_000);
  made.a.child();
  return made;
})();

function run(input: Uint8Array): void {
  const [choice = 0, way = 0] = input;
  const data = input.subarray(2);
  if (data.length === 0) return;
  decide(COMPILED[choice % COMPILED.length]![way & 1]!, data);
  send(data);
}

function decide(policy: (typeof COMPILED)[number][number], data: Uint8Array): void {
  const flow = new Flow();
  if (readFlow(data, 0, data.length, flow) !== FlowError.none) return;
  const { compiled, cache } = policy;
  const found = compiled.lookup(flow);
  const explained = explainFlow(policy, flow);
  formatDecision(explained);
  holds(found === explained.answer, `the compiled policy says ${found}, its explanation ${explained.answer}`);
  for (let n = 0; n < 2; n++) holds(cache.lookup(compiled, flow) === found, 'the cache says something else');
}

function send(data: Uint8Array): void {
  const { net, a } = PAIR;
  net.now += 1;
  const batch = new PacketBatch(1, 2_000);
  if (batch.push(data) < 0) return;
  a.engine.send(net.now, 't', batch);
  net.drain(a);
  if (batch.length[0] === 0) return;
  const out = batch.packet(0);
  if (batch.tag[0] === BYPASS_TAG) {
    holds(
      data[0]! >>> 4 === 4 && data[16] === 10 && data[17] === 3,
      'a packet that no entry bypasses leaves in clear text',
    );
    return;
  }
  holds(a.engine.path(batch.tag[0]!) !== undefined, 'a sealed packet has no path');
  const clear = data.subarray(0, 40);
  holds(data.length < 20 || Buffer.from(out).indexOf(clear) < 0, 'a packet shows what is inside');
  holds(isBetween(data, ['0a0100'], ['0a0200']), 'a packet that no entry protects leaves in the tunnel');
}

function seeds(): Uint8Array[] {
  const v4 = { src: '10.1.0.7', dst: '10.2.0.9' };
  const v6 = { src: 'fd01::7', dst: 'fd02::9' };
  const quote = packet({ src: '10.2.0.9', dst: '10.1.0.7', protocol: 17 });
  const packets = [
    packet({ ...v4, protocol: 17 }),
    packet({ ...v4, dst: '10.3.0.1', protocol: 17 }),
    packet({ ...v4, protocol: 6, payload: concatBytes(ports(80, 9), new Uint8Array(12)) }),
    packet({ ...v4, protocol: 1, payload: icmp(8, 0) }),
    packet({ ...v4, protocol: 1, payload: concatBytes(icmp(3, 4), quote) }),
    packet({ ...v4, protocol: 17, offset: 0, more: true, id: 7 }),
    packet({ ...v4, protocol: 17, offset: 64, id: 7 }),
    packet({ ...v4, protocol: 17, options: Uint8Array.of(7, 4, 4, 0) }),
    packet({ ...v6, protocol: 17 }),
    packet({ ...v6, protocol: 17, extensions: [extension(0), extension(60, 16)] }),
    packet({ ...v6, protocol: 17, offset: 0, more: true, id: 3 }),
    packet({ ...v6, protocol: 135, payload: icmp(5, 0) }),
  ];
  return packets.map((data, at) => concatBytes(Uint8Array.of(at % 3, at & 1), data));
}

export const policy: Target = { name: 'policy', shape: 'bytes', maxLength: 1_600, tokens: [], seeds, run };

/** Tables of other programs as nft prints them, and how packets pass them: they may be of any size and shape. */
import { utf8 } from '../../../src/base/text.ts';
import { parseTable, readTitle } from '../../../src/hostnet/filters/listing.ts';
import { passHook } from '../../../src/hostnet/filters/walk.ts';
import { packet, ping, V6 } from '../../hostnet/filters/packets.ts';
import { holds, type Target } from '../target.ts';

const HOOKS = ['prerouting', 'input', 'forward', 'output', 'postrouting'] as const;
const PACKETS = [packet(), ping(), packet(V6)];

function run(input: Uint8Array): void {
  const text = new TextDecoder().decode(input);
  for (const line of text.split('\n')) readTitle(line);
  const tables = text.split(/\n(?=table )/).flatMap((part) => parseTable(part) ?? []);
  for (const hook of HOOKS) {
    for (const one of PACKETS) {
      const { findings, stopped } = passHook(tables, { hook }, one);
      // What is certain comes behind them: a translation of each kind, and the end.
      holds(findings.length <= 32 + 3, 'more findings than are reported');
      holds(!stopped || findings.length > 0, 'a packet is stopped, and nothing says why');
    }
  }
}

const SEED = `table inet fw {
	set nets {
		type ipv4_addr
		flags interval
		elements = { 10.1.0.0/24, 10.2.0.0-10.2.0.9,
			     192.0.2.1 }
	}
	map verdicts {
		type inet_service : verdict
		elements = { 443 : jump other, 80 : drop }
	}
	chain other {
		meta mark set 0x00000007
		ip saddr @nets counter packets 1 bytes 60 return
		ct state established,related accept
		reject with icmp port-unreachable
	}
	chain forward {
		type filter hook forward priority filter; policy drop;
		iifname "lan*" oifname != { "eth0", "eth1" } ip daddr 10.2.0.0/24 tcp dport { 22, 80-90, 443 } goto other
		tcp dport vmap @verdicts
		meta l4proto icmp icmp type echo-request limit rate 5/second accept comment "ping { here"
	}
	chain nat {
		type nat hook prerouting priority dstnat; policy accept;
		udp dport 53 dnat ip to 10.9.0.1:5353
		redirect to :8080
		masquerade random
	}
}`;
const WORDS = [
  'jump ',
  'goto ',
  'return',
  'drop',
  'accept',
  '{ ',
  ' }',
  '@nets',
  'other',
  '!= ',
  'ip6 ',
  'meta mark ',
  '\n\t\t',
];

export const filters: Target = {
  name: 'filters',
  shape: 'text',
  maxLength: 8_192,
  tokens: WORDS.map(utf8),
  seeds: () => [
    utf8(SEED),
    utf8('table ip filter {\n\tchain FORWARD {\n\t\ttype filter hook forward priority 0; policy drop;\n\t}\n}'),
  ],
  run,
};

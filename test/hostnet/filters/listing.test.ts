import { describe, expect, it } from 'vitest';
import { namedSet, parseTable, splitElement } from '../../../src/hostnet/filters/listing.ts';
import { wordsOf } from '../../../src/hostnet/filters/words.ts';
import { table } from './packets.ts';

const LISTED = `# Warning: table inet fw is managed by iptables-nft, do not touch!
table inet fw {
	comment "a { b"
	counter cc {
	}

	set blocked {
		type ipv4_addr
		flags interval
		elements = { 10.0.0.0/8, 192.168.0.1-192.168.0.9 }
	}

	set links {
		type ifname
		elements = { "lan0",
			     "lan 1" }
	}

	set visitors {
		type ipv4_addr
		size 65535
		flags dynamic,timeout
		timeout 1m
		elements = { 10.9.0.1 timeout 1m expires 3s }
	}

	map verdicts {
		type ipv4_addr : verdict
		elements = { 10.0.0.1 : drop, 10.0.0.2 : jump other }
	}

	chain forward {
		comment "of the gateway"
		type filter hook forward priority filter - 5; policy drop;
		ct state vmap { established : accept, related : accept }
		ip saddr { 1.1.1.1,
			   1.1.1.2 } log prefix "} {" drop
	}

	chain other {
		ip ttl 1 return
	}

	chain post {
		type nat hook postrouting priority srcnat; policy accept;
	}

	chain early {
		type filter hook prerouting priority -450; policy accept;
	}
}
`;

describe('a table as nft prints it', () => {
  it('has its chains with their hooks, and rules on one line each', () => {
    const { title, family, chains } = table(LISTED);
    expect([title, family]).toEqual(['inet fw', 'inet']);
    expect([...chains.keys()]).toEqual(['forward', 'other', 'post', 'early']);
    expect(chains.get('forward')).toEqual({
      name: 'forward',
      base: { type: 'filter', hook: 'forward', priority: -5, policy: 'drop' },
      rules: [
        'ct state vmap { established : accept, related : accept }',
        'ip saddr { 1.1.1.1, 1.1.1.2 } log prefix "} {" drop',
      ],
    });
    expect(chains.get('other')).toEqual({ name: 'other', base: undefined, rules: ['ip ttl 1 return'] });
    expect(chains.get('post')?.base).toEqual({ type: 'nat', hook: 'postrouting', priority: 100, policy: 'accept' });
    expect(chains.get('early')?.base?.priority).toBe(-450);
  });

  it('has its sets and maps', () => {
    const found = table(LISTED);
    expect(namedSet(found, '@blocked')).toEqual(['10.0.0.0/8', '192.168.0.1-192.168.0.9']);
    expect(namedSet(found, '@links')).toEqual(['"lan0"', '"lan 1"']);
    expect(namedSet(found, '@verdicts')?.map(splitElement)).toEqual([
      { key: '10.0.0.1', data: 'drop' },
      { key: '10.0.0.2', data: 'jump other' },
    ]);
    expect(namedSet(found, '@visitors')?.map(splitElement)).toEqual([{ key: '10.9.0.1', data: undefined }]);
    expect(namedSet(found, '@nothing')).toBeUndefined();
  });

  it('is none while it is dormant, nor of a family that routes nothing', () => {
    expect(parseTable('table inet fw {\n\tflags dormant\n\n\tchain c {\n\t}\n}\n')).toBeUndefined();
    expect(parseTable('table netdev fw {\n}\n')).toBeUndefined();
    expect(parseTable('')).toBeUndefined();
  });

  it('keeps quoted and bracketed words whole', () => {
    expect(wordsOf('iifname { "a b", "c" } log prefix "x } y"  drop')).toEqual([
      'iifname',
      '{ "a b", "c" }',
      'log',
      'prefix',
      '"x } y"',
      'drop',
    ]);
  });
});

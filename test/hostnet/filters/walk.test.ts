import { describe, expect, it } from 'vitest';
import type { HookPacket } from '../../../src/hostnet/filters/packet.ts';
import { type Passage, passHook } from '../../../src/hostnet/filters/walk.ts';
import { packet, table, V6 } from './packets.ts';

const UNKNOWN = 'meta skuid 1000';

function forward(rules: readonly string[], words: { policy?: string; others?: string; family?: string } = {}): Passage {
  const { policy = 'accept', others = '', family = 'inet' } = words;
  return pass(
    `table ${family} fw {
	chain forward {
		type filter hook forward priority filter; policy ${policy};
		${rules.join('\n\t\t')}
	}
${others}
}`,
  );
}

function pass(
  text: string,
  seen: HookPacket = packet(),
  hook: 'forward' | 'postrouting' | 'output' = 'forward',
): Passage {
  const tables = text.split(/\n(?=table )/).map(table);
  return passHook(tables, { hook }, seen);
}

function chain(name: string, rules: readonly string[]): string {
  return `\tchain ${name} {\n\t\t${rules.join('\n\t\t')}\n\t}\n`;
}

describe('a packet at a hook', () => {
  it('passes where no rule stops it', () => {
    expect(forward(['ct state established drop', 'ip saddr 10.1.0.0/24 accept', 'drop'])).toEqual({
      findings: [],
      stopped: false,
      routeMark: 0,
      asked: 1,
      cut: false,
    });
  });

  it('is dropped by a rule, by a chain that it is led to, and by a policy', () => {
    const [found] = forward(['ip saddr 10.1.0.0/24 reject with icmp port-unreachable']).findings;
    expect(found).toMatchObject({ effect: 'drop', how: 'reject', certain: true, table: 'inet fw', chain: 'forward' });
    const led = forward(['jump other', 'accept'], { others: chain('other', ['tcp dport 443 drop']) });
    expect(led).toMatchObject({ stopped: true, findings: [{ chain: 'other', rule: 'tcp dport 443 drop' }] });
    expect(forward(['ct state established accept'], { policy: 'drop' })).toMatchObject({
      stopped: true,
      findings: [{ how: 'policy drop', certain: true, rule: 'policy drop' }],
    });
    const back = forward(['jump other', 'drop'], { others: chain('other', ['return', 'accept']) });
    expect(back.stopped).toBe(true);
    expect(forward(['goto other', 'drop'], { others: chain('other', ['return']) }).stopped).toBe(false);
  });

  it('may be dropped by a rule that is not understood, and passes', () => {
    expect(forward([`${UNKNOWN} drop`])).toMatchObject({
      stopped: false,
      findings: [{ certain: false, unless: undefined }],
    });
    const led = forward([`${UNKNOWN} jump other`], { others: chain('other', ['drop']) });
    expect(led).toMatchObject({
      stopped: false,
      findings: [{ certain: false, rule: 'drop', unless: `${UNKNOWN} jump other` }],
    });
  });

  it('may be let go before it is dropped', () => {
    const may = { stopped: false, findings: [{ certain: false, unless: `${UNKNOWN} accept` }] };
    expect(forward([`${UNKNOWN} accept`, 'drop'])).toMatchObject(may);
    expect(forward([`${UNKNOWN} accept`], { policy: 'drop' })).toMatchObject(may);
    const led = forward(['jump other', 'drop'], { others: chain('other', [`${UNKNOWN} accept`]) });
    expect(led).toMatchObject(may);
    const left = forward(['jump other'], { others: chain('other', [`${UNKNOWN} return`, 'drop']) });
    expect(left).toMatchObject({ stopped: false, findings: [{ unless: `${UNKNOWN} return` }] });
    // What may have been left is over with the chain.
    expect(forward(['jump other', 'drop'], { others: chain('other', [`${UNKNOWN} return`]) }).stopped).toBe(true);
  });

  it('passes the chains in the order of their priorities, of all tables of its family', () => {
    const late = 'table ip late {\n\tchain c {\n\t\ttype filter hook forward priority 5; policy drop;\n\t}\n}';
    const early = 'table inet early {\n\tchain c {\n\t\ttype filter hook forward priority -5; policy drop;\n\t}\n}';
    expect(pass(`${late}\n${early}`).findings).toMatchObject([{ table: 'inet early' }]);
    expect(pass(late, packet(V6))).toMatchObject({ asked: 0, stopped: false });
    const accepting = early.replace('policy drop', 'policy accept');
    expect(pass(`${late}\n${accepting}`).findings).toMatchObject([{ table: 'ip late' }]);
    expect(pass(early, packet(), 'output').asked).toBe(0);
  });

  it('is translated by the first rule that does so', () => {
    const nat = (rules: readonly string[], type = 'nat'): Passage =>
      pass(
        `table ip nat {\n\tchain c {\n\t\ttype ${type} hook postrouting priority srcnat; policy accept;\n\t\t${rules.join('\n\t\t')}\n\t}\n}`,
        packet(),
        'postrouting',
      );
    expect(nat(['oifname != "docker0" masquerade', 'snat to 10.1.0.1'])).toMatchObject({
      stopped: false,
      findings: [{ effect: 'source', how: 'masquerade', certain: true }],
    });
    expect(nat([`${UNKNOWN} masquerade`, 'snat to 10.1.0.1']).findings).toMatchObject([
      { how: 'masquerade', certain: false },
      { how: 'snat', certain: false, unless: `${UNKNOWN} masquerade` },
    ]);
    expect(nat(['ip daddr 10.2.0.0/16 accept', 'masquerade']).findings).toEqual([]);
  });

  it('is seen as it was translated by the chains behind', () => {
    const chains = `table ip t {
	chain late {
		type filter hook output priority filter; policy accept;
		ip daddr 10.2.0.1 drop
		ct status dnat ip daddr 192.0.2.2 drop
	}

	chain nat {
		type nat hook output priority dstnat; policy accept;
		dnat to 192.0.2.2
	}
}`;
    const { findings } = pass(chains, packet(), 'output');
    expect(findings).toMatchObject([
      { effect: 'destination' },
      { effect: 'drop', rule: 'ct status dnat ip daddr 192.0.2.2 drop' },
    ]);
  });

  it('is routed by the mark that a chain before routing sets', () => {
    const marking = (type: string): Passage =>
      pass(
        `table ip m {\n\tchain c {\n\t\ttype ${type} hook output priority mangle; policy accept;\n\t\tmeta mark set 0x10\n\t}\n}`,
        packet(),
        'output',
      );
    expect(marking('route').routeMark).toBe(0x10);
    // The route of a packet of the host stays as it is.
    expect(marking('filter').routeMark).toBe(0);
  });

  it('is followed no further than a bound, and it is told', () => {
    const loop = forward(['jump other'], { others: chain('other', ['jump other']) });
    expect(loop).toMatchObject({ cut: true, stopped: false });
    const long = forward(Array<string>(100_001).fill('ip saddr 1.1.1.1 drop'), { policy: 'drop' });
    expect(long).toMatchObject({ cut: true, stopped: false, findings: [{ certain: false, how: 'policy drop' }] });
  });

  it('costs no more where rules are long and are come by again and again', () => {
    const long = Array<string>(100).fill(`ip saddr 10.1.0.0/24 ${'meta skuid 5 '.repeat(210)}counter`);
    const again = Array<string>(100).fill('jump other');
    expect(forward(again, { others: chain('other', long) })).toMatchObject({ cut: true });
    expect(forward(again.slice(0, 10), { others: chain('other', long) })).toMatchObject({ cut: false });
  });

  it('has a bounded number of findings, and its end is among them', () => {
    const marks = Array<string>(40).fill('meta mark set 0x00000007');
    const { findings, routeMark } = forward([...marks, 'drop']);
    expect(findings).toHaveLength(33);
    expect(findings.at(-1)).toMatchObject({ effect: 'drop', certain: true });
    expect(routeMark).toBe(7);
  });
});

/** Requests whose parameters are not those of their verb, over the socket of a daemon. */
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { CONTROL_SOCKET, MAX_LINE } from '../../../src/control/protocol.ts';
import { VERBS } from '../../../src/control/verbs.ts';
import { MemoryNetwork } from '../../../src/tun/udp/memory.ts';
import { RawClient } from '../../support/control.ts';
import { address, TestDaemon } from '../../support/daemon.ts';

/** Sends lines over one connection, and `list` behind them. @returns the message of each refusal */
async function refusalsOf(lines: readonly string[]): Promise<string[]> {
  const { runDir } = await TestDaemon.start(new MemoryNetwork().host([address('192.0.2.1')]));
  const client = await RawClient.open(join(runDir, CONTROL_SOCKET));
  client.send(lines.map((line) => `${line}\n`).join(''));
  client.ask(7, 'list');
  const answers = [...(await client.answered(lines.length + 1))];
  expect(answers.pop()).toEqual({ id: 7, result: { tunnels: [], unreadable: [] } });
  return answers.map((answer) => {
    if (!('error' in answer)) throw new Error(`not refused: ${JSON.stringify(answer)}`);
    expect(answer.error.code).toBe('bad-request');
    return answer.error.message;
  });
}

function request(verb: string, params: object): string {
  return JSON.stringify({ id: 1, verb, params });
}

/** A value of each kind, and one that it is not. */
const VALUES = {
  text: ['a', 1],
  document: ['<a/>', null],
  flag: [true, 'yes'],
  octet: [8, 256],
  count: [1, 0],
  names: [['a'], 'a'],
  documents: [[{ xml: '<a/>', source: 'a' }], [{ xml: '<a/>' }]],
} as const;

const SPECS = Object.entries(VERBS).map(([verb, takes]) => {
  const kinds = Object.entries(takes as Readonly<Record<string, string>>).map(([name, kind]) => ({
    name,
    kind: kind.replace('?', '') as keyof typeof VALUES,
    isOptional: kind.endsWith('?'),
  }));
  return { verb, kinds, whole: Object.fromEntries(kinds.map(({ name, kind }) => [name, VALUES[kind][0]])) };
});

describe('a request', () => {
  it('without a parameter that its verb wants is refused by the name of the parameter', async () => {
    const cases = SPECS.flatMap(({ verb, kinds, whole }) =>
      kinds.filter(({ isOptional }) => !isOptional).map(({ name }) => ({ verb, name, whole, kinds })),
    );
    const found = await refusalsOf(
      cases.map(({ verb, name, whole }) => request(verb, { ...whole, [name]: undefined })),
    );
    expect(found).toEqual(
      cases.map(
        ({ verb, name, kinds }) =>
          `the parameter '${name}' is missing; '${verb}' takes ${kinds.map((kind) => kind.name).join(', ')}`,
      ),
    );
    expect(found.length).toBeGreaterThan(20);
  });

  it('with a parameter that its verb does not take is refused by the name of the parameter', async () => {
    const found = await refusalsOf(SPECS.map(({ verb, whole }) => request(verb, { ...whole, colour: 'red' })));
    for (const [i, { verb }] of SPECS.entries())
      expect(found[i]).toContain(`unknown parameter 'colour'; '${verb}' takes `);
  });

  it('with a parameter of another kind is refused by the name of the parameter', async () => {
    const cases = SPECS.flatMap(({ verb, kinds, whole }) =>
      kinds.map(({ name, kind }) => ({ verb, name, kind, whole })),
    );
    const found = await refusalsOf(
      cases.map(({ verb, name, kind, whole }) => request(verb, { ...whole, [name]: VALUES[kind][1] })),
    );
    for (const [i, { name }] of cases.entries())
      expect(found[i]).toMatch(new RegExp(`^the parameter '${name}' is .*; expected: `));
  });

  it('is refused with what was found and what was wanted', async () => {
    const cases: readonly (readonly [string, string])[] = [
      ['not JSON', 'the request is not JSON'],
      [`{"id":1,"verb":"list","x":"${'x'.repeat(MAX_LINE)}"}`, `the request has more than ${MAX_LINE} bytes`],
      ['{"id":1}', 'the request has no verb'],
      ['{"id":1,"verb":"list","params":[1]}', 'params is not an object'],
      [request('strat', { name: 'a' }), "unknown verb 'strat' (did you mean 'start'?)"],
      [request('toString', {}), "unknown verb 'toString'"],
      [request('start', {}), "the parameter 'name' is missing; 'start' takes name"],
      [request('start', { nmae: 'a' }), "unknown parameter 'nmae' (did you mean 'name'?); 'start' takes name"],
      ['{"id":1,"verb":"reload","params":{"__proto__":1}}', "unknown parameter '__proto__'; 'reload' takes plan"],
      [request('reload', { toString: 1 }), "unknown parameter 'toString'; 'reload' takes plan"],
      [request('reload', { ['x'.repeat(50)]: 1 }), `unknown parameter '${'x'.repeat(40)}…'; 'reload' takes plan`],
      [request('start', { name: 5 }), "the parameter 'name' is 5; expected: a string"],
      [request('start', { name: null }), "the parameter 'name' is null; expected: a string"],
      [request('start', { name: ['a'] }), "the parameter 'name' is an array; expected: a string"],
      [request('status', { name: {} }), "the parameter 'name' is an object; expected: a string"],
      [
        request('start', { name: 'a'.repeat(5000) }),
        "the parameter 'name' has 5000 characters; at most 4096 are allowed",
      ],
      [request('start', { name: 'a\0b' }), "the parameter 'name' contains a zero character"],
      [
        request('autostart', { name: 'a', enable: 'yes\n' }),
        String.raw`the parameter 'enable' is the string "yes\n"; expected: true or false`,
      ],
      ...['-1', '256', '1.5', '1e309'].map((octet): readonly [string, string] => [
        `{"id":1,"verb":"explain","params":{"name":"a","src":"b","dst":"c","proto":"icmp","type":${octet}}}`,
        `the parameter 'type' is ${Number(octet)}; expected: an integer from 0 to 255`,
      ]),
    ];
    expect(await refusalsOf(cases.map(([line]) => line))).toEqual(cases.map(([, message]) => message));
  });
});

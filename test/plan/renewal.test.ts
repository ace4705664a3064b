/** Which differences of a document need a new device, a new IKE SA, new CHILD SAs, new keys, or nothing. */
import { expect, it } from 'vitest';
import { parseDocument } from '../../src/config/parse.ts';
import { type Renewal, renewalOf } from '../../src/plan/renewal.ts';
import { type DocumentWords, tunnelDocument } from '../support/daemon.ts';

const sp = (name: string, third: number, more = ''): string =>
  `<sp name='${name}'><src_range address='10.1.0.0' prefixlen='16'/><dst_range address='10.${third}.0.0' prefixlen='16'/>` +
  `<upperspec protocol='any'/>${more}<policy direction='both' action='ipsec'><rule protocol='esp' mode='tunnel' level='require'/></policy></sp>`;

function written(words: DocumentWords, ...sps: string[]): string {
  return tunnelDocument(words).replace('</sectunnel>', `${sps.join('')}</sectunnel>`);
}

function between(before: string, after: string): Renewal {
  const [old, fresh] = [before, after].map((xml) =>
    parseDocument(xml, { newUuid: () => '7e5f1c8e-6d0e-4b7e-9a55-0c3f2f6d1a10' }),
  );
  return renewalOf(old!, fresh!);
}

const BASE = written({}, sp('dmz', 7));
const changed = (from: string | RegExp, to: string): string => {
  const xml = BASE.replace(from, to);
  expect(xml).not.toBe(BASE);
  return xml;
};
const words = (more: DocumentWords): string => written(more, sp('dmz', 7));

/** `device ike lan dmz` */
function inShort({ device, ikeSas, children }: Renewal): string {
  const fate = (name: string): string => children.find((child) => child.name === name)?.fate ?? 'none';
  return [device, ikeSas, fate('lan'), fate('dmz')].join(' ');
}

it.each<[what: string, after: () => string, renewal: string]>([
  ['comments', () => changed('<sp ', '<!-- note --><sp '), 'kept kept kept kept'],
  ['a title', () => words({ extra: '<title>new</title>' }), 'kept kept kept kept'],
  ['the start', () => words({ start: 'respond' }), 'kept kept kept kept'],
  ['DPD', () => words({ ike: "<dpd interval='7' action='clear'/>" }), 'kept kept kept kept'],
  ['lifetimes of IKE', () => words({ ike: "<lifetime soft='7000' hard='9000'/>" }), 'kept kept kept kept'],
  ['lifetimes of ESP', () => words({ esp: "<lifetime soft='700' hard='900'/>" }), 'kept kept kept kept'],
  ['NAT keepalives', () => words({ ike: "<nat keepalive='7'/>" }), 'kept kept kept kept'],
  ['a priority', () => changed("<sp name='dmz'", "<sp name='dmz' priority='7'"), 'kept kept kept kept'],
  ['IPv6 that is blocked', () => words({ extra: "<device ipv6='block'/>" }), 'kept kept kept kept'],
  ['ESP proposals', () => words({ esp: "<proposal encryption='aes256gcm16'/>" }), 'kept kept rekeyed rekeyed'],
  ['the replay window', () => words({ esp: "<replay window='4096'/>" }), 'kept kept rekeyed rekeyed'],
  ['outer DSCP', () => words({ esp: "<outer dscp='0'/>" }), 'kept kept rekeyed rekeyed'],
  [
    'IKE proposals',
    () => words({ ike: "<proposal encryption='aes256gcm16' prf='sha384' dh='ecp384'/>" }),
    'kept rekeyed kept kept',
  ],
  ['selectors of a child', () => written({}, sp('dmz', 8)), 'kept kept kept anew'],
  ['a name of a child', () => written({}, sp('other', 7)), 'kept kept kept removed'],
  ['one child less', () => written({}), 'kept kept kept removed'],
  ['the peer', () => words({ remote: '192.0.2.9' }), 'kept anew anew anew'],
  ['an identity', () => words({ remoteId: 'other.example' }), 'kept anew anew anew'],
  ['encapsulation', () => words({ ike: "<nat traversal='force'/>" }), 'kept anew anew anew'],
  ['the secret', () => changed(/555555555501/, '555555555502'), 'kept anew anew anew'],
  ['fragmentation', () => words({ ike: "<fragmentation size='off'/>" }), 'kept anew anew anew'],
  ['the device', () => words({ extra: "<device mtu='1300'/>" }), 'anew anew anew anew'],
])('%s', (_, after, renewal) => {
  expect(inShort(between(BASE, after()))).toBe(renewal);
});

it('tells of a child that is new', () => {
  expect(between(BASE, written({}, sp('dmz', 7), sp('new', 8)))).toEqual({
    device: 'kept',
    ikeSas: 'kept',
    children: [
      { name: 'lan', fate: 'kept' },
      { name: 'dmz', fate: 'kept' },
      { name: 'new', fate: 'added' },
    ],
  });
});

/** Where two documents differ, as `reload --dry-run` lists it. */
import { expect, it } from 'vitest';
import { type Difference, differencesOf } from '../../src/config/differences.ts';
import { parseDocument } from '../../src/config/parse.ts';
import { tunnelDocument } from '../support/daemon.ts';

const UUID = '7e5f1c8e-6d0e-4b7e-9a55-0c3f2f6d1a10';

function between(before: string, after: string): Difference[] {
  const parsed = [before, after].map((xml) => parseDocument(xml, { newUuid: () => UUID }));
  return differencesOf(parsed[0]!, parsed[1]!);
}

const sp = (name: string, third: number): string =>
  `<sp name='${name}'><src_range address='10.8.0.0' prefixlen='24'/><dst_range address='10.${third}.0.0' prefixlen='24'/>` +
  "<upperspec protocol='any'/><policy direction='out' action='none'/></sp>";
const document = (...sps: string[]): string =>
  tunnelDocument({}).replace('</sectunnel>', `${sps.join('')}</sectunnel>`);

it('finds none where documents say the same in other words', () => {
  const xml = tunnelDocument({});
  expect(between(xml, `<!-- by hand -->${xml.replaceAll('\n', '\n\n')}`)).toEqual([]);
});

it('names attributes with both values, defaults as if they were written', () => {
  const changed = tunnelDocument({ ike: "<dpd interval='7'/>" });
  expect(between(tunnelDocument({}), changed)).toEqual([{ path: 'sa/ike/dpd/@interval', before: '30', after: '7' }]);
  expect(between(changed, tunnelDocument({}))).toEqual([{ path: 'sa/ike/dpd/@interval', before: '7', after: '30' }]);
});

it('names elements that came or went, and the text of one that changed', () => {
  const titled = (title: string): string => tunnelDocument({ extra: `<title>${title}</title>` });
  expect(between(tunnelDocument({}), titled('a'))).toEqual([
    { path: 'title', before: undefined, after: '<title>a</title>' },
  ]);
  expect(between(titled('a'), titled('b'))).toEqual([{ path: 'title/text()', before: 'a', after: 'b' }]);
});

it('knows an <sp> by its name, and tells of their order', () => {
  expect(between(document(sp('one', 1), sp('two', 2)), document(sp('two', 2), sp('three', 3)))).toEqual([
    { path: 'sp[three]', before: undefined, after: expect.stringContaining('10.3.0.0') },
    { path: 'sp[one]', before: expect.stringContaining('10.1.0.0'), after: undefined },
  ]);
  expect(between(document(sp('one', 1)), document(sp('one', 2)))).toEqual([
    { path: 'sp[one]/dst_range/@address', before: '10.1.0.0', after: '10.2.0.0' },
  ]);
  const [order, ...others] = between(document(sp('one', 1), sp('two', 2)), document(sp('two', 2), sp('one', 1)));
  expect(others).toEqual([]);
  expect([order!.path, order!.before, order!.after]).toEqual([
    'sp',
    expect.stringMatching(/sp\[one\] sp\[two\]$/),
    expect.stringMatching(/sp\[two\] sp\[one\]$/),
  ]);
});

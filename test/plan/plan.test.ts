import { describe, expect, it } from 'vitest';
import { parseAddress } from '../../src/base/address.ts';
import { parseDocument } from '../../src/config/parse.ts';
import { planTunnel, type Resolver } from '../../src/plan/plan.ts';
import { tunnelDocument } from '../support/daemon.ts';

it.each<readonly [string, number]>([
  ['', 1_280],
  ["<fragmentation size='1500'/>", 1_500],
  ["<fragmentation size='off'/>", 0],
])('IKE messages of a document with %j go in packets of %i bytes', async (element, fragmentSize) => {
  const { tunnel } = await planTunnel(parseDocument(tunnelDocument({ ike: element })));
  expect(tunnel.connections).toMatchObject([{ fragmentSize }]);
});

describe('the host name of an end', () => {
  const named = parseDocument(tunnelDocument({ remote: 'gw2.example.org' }));

  it('is resolved to the address family of our own end', async () => {
    const asked: unknown[] = [];
    const resolve: Resolver = async (...question) => {
      asked.push(question);
      return parseAddress('192.0.2.7')!;
    };
    const { tunnel } = await planTunnel(named, { resolve });
    expect(asked).toEqual([['gw2.example.org', 4]]);
    expect(tunnel.connections[0]?.remote.address).toEqual(parseAddress('192.0.2.7'));
  });

  it('that has no address is reported with its name and the reason', async () => {
    const resolve: Resolver = () => Promise.reject(new Error('no such host'));
    await expect(planTunnel(named, { resolve })).rejects.toMatchObject({
      code: 'system',
      message: "the name 'gw2.example.org' cannot be resolved: no such host",
    });
  });

  it('is refused where no names are resolved', async () => {
    await expect(planTunnel(named)).rejects.toMatchObject({
      code: 'unsupported',
      message: expect.stringMatching(/'gw2.example.org'.*resolves no names/),
    });
  });
});

describe('a device in a VRF', () => {
  const inVrf = (extra = '', change: (xml: string) => string = (xml) => xml): Promise<unknown> =>
    planTunnel(parseDocument(change(tunnelDocument({ extra: `<device vrf='blue'${extra}/>` }))));

  it('is planned, and so are its routes', async () => {
    expect(await inVrf()).toMatchObject({ device: { vrf: 'blue', routing: { vrf: 'blue', table: undefined } } });
  });

  it.each<readonly [string, string, ((xml: string) => string) | undefined, string]>([
    ['a table', " table='7'", undefined, "leave 'table' out"],
    ['a group', '', (xml) => xml.replace('</esp>', "</esp><redundancy group='g'/>"), "write routes='none'"],
    ['level use', '', (xml) => xml.replace("level='require'", "level='use'"), "write level='require'"],
  ])('is refused with %s, with what to change', async (_, extra, change, advice) => {
    await expect(inVrf(extra, change)).rejects.toMatchObject({
      code: 'unsupported',
      message: expect.stringContaining(advice),
    });
  });
});

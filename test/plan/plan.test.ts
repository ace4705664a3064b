import { expect, it } from 'vitest';
import { parseDocument } from '../../src/config/parse.ts';
import { planTunnel } from '../../src/plan/plan.ts';
import { tunnelDocument } from '../support/daemon.ts';

it.each<readonly [string, number]>([
  ['', 1_280],
  ["<fragmentation size='1500'/>", 1_500],
  ["<fragmentation size='off'/>", 0],
])('IKE messages of a document with %j go in packets of %i bytes', async (element, fragmentSize) => {
  const { tunnel } = await planTunnel(parseDocument(tunnelDocument({ ike: element })));
  expect(tunnel.connections).toMatchObject([{ fragmentSize }]);
});

/** Fetching from servers that answer wrongly, too much, or not at all. */
import { createServer, type RequestListener } from 'node:http';
import { type AddressInfo, createServer as createTcpServer, type Server } from 'node:net';
import { describe, expect, it, onTestFinished } from 'vitest';
import { parseAddress } from '../../src/base/address.ts';
import { utf8 } from '../../src/base/text.ts';
import { type FetchOptions, httpFetch, refusedAddress } from '../../src/host/fetch.ts';
import type { FetchRequest } from '../../src/pki/revocation/online.ts';

const OPEN: FetchOptions = { refuses: () => undefined };

async function listening(server: Server): Promise<string> {
  await new Promise<void>((resolve) => void server.listen(0, '127.0.0.1', resolve));
  onTestFinished(() => void server.close());
  return `127.0.0.1:${(server.address() as AddressInfo).port}`;
}

const serve = (answer: RequestListener): Promise<string> => listening(createServer(answer));

function get(address: string, more: Partial<FetchRequest> = {}, options: FetchOptions = OPEN): Promise<Uint8Array> {
  const wanted = { url: `http://${address}/a.crl`, body: undefined, accept: 'application/pkix-crl', maxBytes: 1_000 };
  return httpFetch(options)({ ...wanted, ...more });
}

describe('a fetch', () => {
  it('asks with GET, or with POST and a body, and says no more of us than it has to', async () => {
    const address = await serve((request, response) => {
      const { method, url, headers } = request;
      request.setEncoding('utf8').on('data', (body: string) => response.write(body));
      request.on('end', () => response.end(JSON.stringify([method, url, { ...headers, host: '' }])));
    });
    const text = async (more: Partial<FetchRequest>): Promise<string> =>
      Buffer.from(await get(address, more)).toString();
    expect(JSON.parse(await text({}))).toEqual([
      'GET',
      '/a.crl',
      {
        accept: 'application/pkix-crl',
        'accept-encoding': 'identity',
        'user-agent': 'sectunnel',
        host: '',
        connection: 'close',
      },
    ]);
    const posted = await text({ body: { type: 'application/ocsp-request', bytes: utf8('question') } });
    expect(posted).toMatch(/^question\["POST".*"content-type":"application\/ocsp-request","content-length":"8"/);
  });

  it.each<[string, RequestListener, RegExp]>([
    ['that is longer than it may be', (_, response) => response.end('x'.repeat(1_001)), /has 1001 bytes; at most 1000/],
    [
      'that does not say how long it is, and never ends',
      (_, response) => {
        const more = (): void => void (response.destroyed || response.write('x'.repeat(400), more));
        more();
      },
      /more than 1000 bytes/,
    ],
    [
      'that leads elsewhere',
      (_, response) => response.writeHead(302, { location: 'http://192.0.2.1/' }).end(),
      /redirection \(302\), which is not followed/,
    ],
    ['that there is none', (_, response) => response.writeHead(404).end('sorry'), /answers with 404; 200 is required/],
    [
      'that is compressed',
      (_, response) => response.writeHead(200, { 'content-encoding': 'gzip' }).end('xx'),
      /compressed \(gzip\)/,
    ],
    [
      'that ends too early',
      (_, response) => {
        response.writeHead(200, { 'content-length': '100' });
        response.write('x', () => response.destroy());
      },
      /aborted|ended before the answer did/,
    ],
    ['with headers without end', (_, response) => response.setHeader('x', 'y'.repeat(9_000)).end(), /overflow/i],
  ])('gives up at an answer %s', async (_, answer, why) => {
    await expect(get(await serve(answer))).rejects.toThrow(why);
  });

  it('waits so long and no longer, whether nothing comes or a little now and then', async () => {
    const silent = await listening(createTcpServer(() => undefined));
    await expect(get(silent, {}, { ...OPEN, timeout: 40 })).rejects.toThrow('no whole answer within 0.04 s');
    const slow = await serve((_, response) => {
      const drip = setInterval(() => response.write('x'), 5);
      response.on('close', () => clearInterval(drip));
    });
    await expect(get(slow, {}, { ...OPEN, timeout: 80 })).rejects.toThrow('no whole answer within 0.08 s');
  });

  it('finds a server by its name, at whichever of its addresses it is', async () => {
    const address = await serve((_, response) => response.end('list'));
    expect(await get(address.replace('127.0.0.1', 'localhost'))).toEqual(utf8('list'));
  });

  it('reports that no server listens', async () => {
    const server = createTcpServer();
    const address = await listening(server);
    await new Promise((resolve) => server.close(resolve));
    await expect(get(address)).rejects.toThrow('ECONNREFUSED');
  });

  it('begins at most 32 at once: the others wait', async () => {
    let open = 0;
    let most = 0;
    const addresses = await Promise.all(
      Array.from({ length: 6 }, () =>
        serve((_, response) => {
          most = Math.max(most, ++open);
          setTimeout(() => void response.end('x', () => open--), 10);
        }),
      ),
    );
    const fetch = httpFetch(OPEN);
    const wanted = { body: undefined, accept: '', maxBytes: 10 };
    const all = addresses.flatMap((address) =>
      Array.from({ length: 10 }, () => fetch({ ...wanted, url: `http://${address}/` })),
    );
    expect(await Promise.all(all)).toHaveLength(60);
    expect(most).toBeGreaterThan(8);
    expect(most).toBeLessThanOrEqual(32);
  });
});

describe('an address', () => {
  it.each<[string, RegExp]>([
    ['https://pki.example/a.crl', /no address with http:/],
    ['ldap://pki.example/cn=x', /no address with http:/],
    ['file:///etc/shadow', /no address with http:/],
    ['nonsense', /no address with http:/],
    ['http://user:word@pki.example/', /with a password/],
    ['http://127.0.0.1:631/', /127\.0\.0\.1 is not asked: an address of this machine itself/],
    // Other ways to write it, which URL knows.
    ['http://2130706433/', /of this machine/],
    ['http://0x7f.1/', /of this machine/],
    ['http://[::1]/', /of this machine/],
    ['http://[::ffff:127.0.0.1]/', /of this machine/],
    ['http://[64:ff9b::7f00:1]/', /of this machine/],
    ['http://0.0.0.0/', /of this machine/],
    ['http://[::]/', /of this machine/],
    ['http://169.254.169.254/latest/meta-data', /of one link/],
    ['http://[fe80::1]/', /of one link/],
    ['http://239.1.1.1/', /no address of one machine/],
    ['http://255.255.255.255/', /no address of one machine/],
    ['http://[ff02::1]/', /no address of one machine/],
    // By name, which is looked at when it has been resolved.
    ['http://localhost:1/', /localhost is (127\.0\.0\.1|::1), which is not asked: an address of this machine itself/],
    // No name, as a label is too long: known without asking anybody.
    [`http://${'x'.repeat(64)}.invalid/`, /the name x+\.invalid cannot be resolved/],
  ])('such as %s is not asked', async (url, why) => {
    const wanted = { url, body: undefined, accept: '', maxBytes: 10 };
    await expect(httpFetch({ timeout: 3_000 })(wanted)).rejects.toThrow(why);
  });

  it.each([
    '192.0.2.1',
    '10.0.0.1',
    '172.16.0.1',
    '192.168.1.1',
    '223.255.255.255',
    '2001:db8::1',
    'fd00::1',
    '64:ff9b::c000:201',
  ])('such as %s is asked: an authority of one’s own may be there', (text) => {
    expect(refusedAddress(parseAddress(text)!)).toBeUndefined();
  });
});

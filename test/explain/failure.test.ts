import { describe, expect, it } from 'vitest';
import { formatStatus } from '../../src/cli/format.ts';
import { parseDocument } from '../../src/config/parse.ts';
import { placesOfFailure } from '../../src/explain/failure.ts';
import type { FailureStatus } from '../../src/host/status.ts';
import { MemoryNetwork } from '../../src/tun/udp/memory.ts';
import {
  address,
  type DocumentWords,
  eventually,
  oppositeDocument,
  TestDaemon,
  tunnelDocument,
} from '../support/daemon.ts';

/** What both sides say of a negotiation that failed, and the document of each as `dumpxml` prints it. */
interface Told {
  readonly initiator: FailureStatus;
  readonly responder: FailureStatus;
  readonly lines: { readonly left: readonly string[]; readonly right: readonly string[] };
  readonly left: TestDaemon;
  readonly right: TestDaemon;
}

async function failing(leftWords: DocumentWords, rightWords: DocumentWords, secrets = ['key', 'key']): Promise<Told> {
  const network = new MemoryNetwork();
  const left = await TestDaemon.start(network.host([address('192.0.2.1')]));
  const right = await TestDaemon.start(network.host([address('192.0.2.2')]));
  await left.giveSecret(secrets[0]);
  await right.giveSecret(secrets[1]);
  await right.client.call('create', { xml: oppositeDocument(rightWords) });
  await left.client.call('create', { xml: tunnelDocument({ start: 'initiate', ...leftWords }) });
  const failure = async (test: TestDaemon): Promise<FailureStatus | undefined> =>
    (await test.client.call('status', { name: 'net' })).tunnels[0]!.lastFailure;
  const both = async (): Promise<boolean> =>
    (await failure(left)) !== undefined && (await failure(right)) !== undefined;
  await eventually('both failures', both, 20_000);
  const linesOf = async (test: TestDaemon): Promise<string[]> =>
    (await test.client.call('dumpxml', { name: 'net', inactive: false })).xml.split('\n');
  return {
    initiator: (await failure(left))!,
    responder: (await failure(right))!,
    lines: { left: await linesOf(left), right: await linesOf(right) },
    left,
    right,
  };
}

/** `line N: ` for the line on which a text stands. */
function line(lines: readonly string[], text: string): string {
  const at = lines.findIndex((one) => one.includes(text));
  if (at < 0) throw new Error(`the document has no ${text}`);
  return `line ${at + 1}: `;
}

describe('a failure is explained by both sides', () => {
  it('when no IKE proposal fits', async () => {
    const { initiator, responder, lines, right } = await failing(
      { ike: "<proposal encryption='aes256gcm16' prf='sha384' dh='ecp384'/>" },
      { ike: "<proposal encryption='aes256gcm16' prf='sha384' dh='x25519'/>" },
    );
    expect(initiator.detail).toBe(
      'the peer answered NO_PROPOSAL_CHOSEN: offered: aes256gcm16-prfsha384-ecp384\n' +
        'which may mean: it supports none of these proposals, or it has no connection for these addresses',
    );
    expect(initiator.inDocument).toEqual([`${line(lines.left, '<proposal')}<proposal> aes256gcm16-prfsha384-ecp384`]);
    expect(responder.detail).toContain("what differs:\n  1: from the peer's 1: dh: peer ecp384, here x25519");
    expect(responder.inDocument).toEqual([`${line(lines.right, '<proposal')}<proposal> aes256gcm16-prfsha384-x25519`]);

    const log = right.lines.find(({ text }) => text.includes('NO_PROPOSAL_CHOSEN'));
    expect(log?.text).toContain(`\n  ${responder.inDocument[0]}`);
    const status = formatStatus(await right.client.call('status', {}));
    expect(status).toContain(
      `    in the document, as 'sectunnel dumpxml net' prints it:\n      ${responder.inDocument[0]}\n`,
    );
  }, 30_000);

  it('when no ESP proposal fits', async () => {
    const { initiator, responder, lines } = await failing(
      { esp: "<proposal encryption='aes128gcm16' esn='yes'/>" },
      { esp: "<proposal encryption='aes128gcm16' esn='no'/>" },
    );
    expect(initiator.detail).toContain('offered for child lan: aes128gcm16-esn\nwhich may mean: ');
    expect(initiator.inDocument).toEqual([
      `${line(lines.left, "esn='yes'")}<proposal> aes128gcm16-esn`,
      `${line(lines.left, '<rule')}<rule mode='tunnel'> of 'lan': 10.1.0.0/24 === 10.2.0.0/24`,
    ]);
    expect(responder.detail).toMatch(/^child lan: offered by the peer:[\s\S]*esn: peer yes, here no$/);
    expect(responder.inDocument[0]).toBe(`${line(lines.right, "esn='no'")}<proposal> aes128gcm16-noesn`);
  });

  it('when no selector fits', async () => {
    const { initiator, responder, lines } = await failing({}, { inner: ['10.2.0.0', '10.8.0.0'] });
    expect(initiator.detail).toContain(
      'offered for child lan: local 10.1.0.0/24, remote 10.2.0.0/24\nwhich may mean: it protects none of this traffic',
    );
    const ours = "<rule mode='tunnel'> of 'lan': 10.1.0.0/24 === 10.2.0.0/24";
    expect(initiator.inDocument).toEqual([`${line(lines.left, '<rule')}${ours}`]);
    expect(responder.detail).toBe(
      'child lan: remote side: proposed 10.1.0.0/24; configured 10.8.0.0/24; no address is in both',
    );
    expect(responder.inDocument[0]).toContain('10.2.0.0/24 === 10.8.0.0/24');
  });

  it('when the pre-shared keys differ: the identities are not to blame', async () => {
    const { initiator, responder, lines, left, right } = await failing({}, {}, ['this one key', 'that other key']);
    expect(responder.detail).toBe(
      'the peer is 192.0.2.1, we are 192.0.2.2: the identities match, but the pre-shared keys differ',
    );
    expect(initiator.detail).toContain(
      'we are address 192.0.2.1 and want address 192.0.2.2, and authenticated with a pre-shared key',
    );
    expect(initiator.inDocument).toEqual([
      `${line(lines.left, '<id')}<id type='address'>192.0.2.1</id>`,
      expect.stringContaining("<id type='address'>192.0.2.2</id>"),
      `${line(lines.left, '<auth')}<auth type='psk'>`,
    ]);
    const said = [...left.lines, ...right.lines].map(({ text }) => text).join('\n');
    expect(said).not.toMatch(/this one key|that other key/);
  });

  it('when an identity is another: what was said, and what the document wants', async () => {
    const { responder, lines } = await failing({}, { remoteId: 'gw9.example.org' });
    expect(responder.detail).toContain('the peer identifies itself as address 192.0.2.1');
    expect(responder.detail).toContain('connection net is for fqdn gw9.example.org');
    expect(responder.inDocument).toContain(`${line(lines.right, 'gw9')}<id type='fqdn'>gw9.example.org</id>`);
  });

  it('without a response: the address that was called; when ESP could not be sent: NAT traversal', async () => {
    const network = new MemoryNetwork();
    const left = await TestDaemon.start(network.host([address('192.0.2.1')]));
    await left.giveSecret();
    await left.client.call('create', { xml: tunnelDocument() });
    const { document } = left.daemon.runner.explainFacts(parseDocument(tunnelDocument()));
    const xml = (await left.client.call('dumpxml', { name: 'net', inactive: false })).xml.split('\n');
    expect(placesOfFailure({ reason: 'timeout', child: undefined }, document)).toEqual([
      `${line(xml, '<local')}<local address='192.0.2.1'>`,
      `${line(xml, '<remote')}<remote address='192.0.2.2'>`,
    ]);
    expect(placesOfFailure({ reason: 'no-esp-path', child: undefined }, document)).toEqual([
      `${line(xml, '<nat')}<nat traversal='auto' encapsulation='always' port='4500'>`,
    ]);
  });
});

/** Errors that a program can act on: all are SectunnelErrors, with a code of the union. */
import { describe, expect, it } from 'vitest';
import { SectunnelError } from '../../src/base/error.ts';
import { parseDocument } from '../../src/config/parse.ts';
import { nobleProvider } from '../../src/crypto/noble/provider.ts';
import { parseIkeProposalString } from '../../src/crypto/proposal-text.ts';
import { ProviderUnavailableError } from '../../src/crypto/provider.ts';
import { TunnelHost } from '../../src/host/host.ts';
import { parseCertificate } from '../../src/pki/certificate.ts';
import { MemoryNetwork } from '../../src/tun/udp/memory.ts';

function thrownBy(action: () => unknown): unknown {
  try {
    action();
  } catch (error) {
    return error;
  }
  throw new Error('nothing was thrown');
}

const DOCUMENT = (ike: string): string => `<sectunnel type='ipsec'><name>t</name>
  <sa><local address='192.0.2.1'/><remote address='192.0.2.2'/>
    <auth type='psk'><secret uuid='11111111-2222-3333-4444-555555555501'/></auth>${ike}<esp/></sa></sectunnel>`;

describe('SectunnelError', () => {
  it.each([
    ['a document that is no XML', 'DocumentError', 'bad-document', () => parseDocument('<sectunnel')],
    ['an element that does not exist', 'DocumentError', 'bad-document', () => parseDocument(DOCUMENT('<ikes/>'))],
    ['a proposal', 'ProposalError', 'malformed', () => parseIkeProposalString('aes257')],
    ['a certificate', 'MalformedCertificateError', 'malformed', () => parseCertificate(Uint8Array.of(1))],
  ] as const)('is what %s is refused with', (_, name, code, action) => {
    const error = thrownBy(action);
    expect(error).toBeInstanceOf(SectunnelError);
    expect(error).toMatchObject({ name, code });
  });

  it('says that a provider is not available as unsupported', () => {
    expect(new ProviderUnavailableError('no library')).toMatchObject({
      name: 'ProviderUnavailableError',
      code: 'unsupported',
      message: 'no library',
    });
  });

  it('distinguishes a tunnel that does not exist from a host that is closed', async () => {
    const host = new TunnelHost({
      network: new MemoryNetwork().host([]),
      crypto: nobleProvider,
      secretFor: () => undefined,
    });
    await expect(host.up('lan')).rejects.toMatchObject({ name: 'SectunnelError', code: 'not-found' });
    await host.close();
  });
});

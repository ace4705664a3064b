/** What a verifier says of a auth, which tests change where they like. */
import { identityFromText } from '../../src/base/identity.ts';
import { utf8 } from '../../src/base/text.ts';
import { parseCertificate } from '../../src/pki/certificate.ts';
import { keySigner } from '../../src/pki/signer.ts';
import type { PeerAuth } from '../../src/pki/types.ts';
import { pathVerifier, type VerifierOptions } from '../../src/pki/verifier.ts';
import { authority, type Made, NOW } from './make.ts';

export const root: Made = authority('O=Example, CN=Root');
export const octets: Uint8Array = utf8('what both sides sign');

/** With a signature that is none. */
export function auth(made: Made, more: Partial<PeerAuth> = {}): PeerAuth {
  const method = keySigner(made.key).methods[0]!;
  const { authMethod, algorithm } = method;
  const id = identityFromText('fqdn', 'gw1.example');
  return {
    certificates: [made.der],
    crls: [],
    id,
    authMethod,
    algorithm,
    signature: new Uint8Array(64),
    octets,
    now: NOW,
    ...more,
  };
}

/** `ok`, or the reason and its detail. */
export async function judge(given: PeerAuth, options: Partial<VerifierOptions> = {}): Promise<string> {
  const verdict = await pathVerifier({ anchors: [parseCertificate(root.der)], ...options }).verify(given);
  return verdict.ok ? 'ok' : `${verdict.reason}: ${verdict.detail}`;
}

/** A auth that is right but for what is changed. */
export async function right(made: Made, more: Partial<PeerAuth> = {}): Promise<PeerAuth> {
  const signer = keySigner(made.key);
  return auth(made, { signature: await signer.sign(signer.methods[0]!, octets), ...more });
}

/** Certificates of an embedding program, through what the library exports: its own signer and verifier, which may be slow. */
import { describe, expect, it, onTestFinished } from 'vitest';
import { fromHex } from '../../src/base/bytes.ts';
import type { EngineEvent, TunnelConfig } from '../../src/public/engine.ts';
import {
  type HostOptions,
  identityFromText,
  nodeProvider,
  TunnelHost,
  type UdpNetwork,
} from '../../src/public/index.ts';
import {
  type Credentials,
  keySigner,
  methodsOf,
  parseCertificate,
  pathVerifier,
  type Signer,
  type Verifier,
} from '../../src/public/pki.ts';
import { MemoryDevice, MemoryNetwork } from '../../src/public/testing.ts';
import { authority, DAY, dns, type Made, make } from '../pki/make.ts';
import { address, eventually } from '../support/daemon.ts';
import { opposite, protect, tunnel } from '../support/engine-net.ts';
import { child, connection, net } from '../support/ike-pair.ts';

const year = { notBefore: Date.now() - DAY, notAfter: Date.now() + 365 * DAY };
const root = authority('CN=root', year);
const issue = (name: string): Made => make({ subject: `CN=${name}`, issuer: root, san: [dns(name)], ...year });
const US = 'us.example';
const own = issue(US);
const verifier = pathVerifier({ anchors: [parseCertificate(root.der)] });
const credentials = ({ der, key }: Made, signer: Signer = keySigner(key)): Credentials => ({
  certificates: [der],
  signer,
});

class End {
  readonly host: TunnelHost;
  readonly events: EngineEvent[] = [];

  constructor(network: UdpNetwork, made: Made, options: Partial<HostOptions> = {}) {
    this.host = new TunnelHost({
      network,
      crypto: nodeProvider,
      secretFor: () => undefined,
      credentialsFor: () => credentials(made),
      verifierFor: () => verifier,
      onEvent: (event) => this.events.push(event),
      ...options,
    });
    onTestFinished(() => this.host.close());
  }

  isUp(name: string): boolean {
    return this.events.some((event) => event.type === 'child-up' && event.tunnel === name);
  }

  /** Why it did not come up. */
  failure(name: string): string | undefined {
    const found = this.events.find((event) => event.type === 'failed' && event.tunnel === name);
    return found?.type === 'failed' ? found.detail : undefined;
  }
}

/** To 192.0.2.2 or 192.0.2.3, on which side the certificates say `peer2.example` or `peer3.example`. */
function tunnelTo(n: 2 | 3): TunnelConfig {
  const { local, remote } = connection();
  const selectors = { local: [net('10.1.0.0/24')], remote: [net(`10.${n}.0.0/24`)] };
  const { authorities } = verifier;
  const certified = {
    local: { ...local, id: identityFromText('fqdn', US), auth: 'signature', authorities },
    remote: {
      ...remote,
      address: address(`192.0.2.${n}`),
      id: identityFromText('fqdn', `peer${n}.example`),
      auth: 'signature',
      authorities,
    },
  } as const;
  return tunnel({
    name: `to-${n}`,
    connections: [connection({ name: `to-${n}`, ...certified, children: [child('c', { selectors })] })],
    policy: [protect({ selectors })],
    start: 'initiate',
  });
}

/** A host with tunnels to two others, of which it calls both. */
async function twoTunnels(options: Partial<HostOptions>): Promise<End> {
  const network = new MemoryNetwork();
  const us = new End(network.host([address('192.0.2.1')]), own, options);
  for (const n of [2, 3] as const) {
    const peer = new End(network.host([address(`192.0.2.${n}`)]), issue(`peer${n}.example`));
    await peer.host.add(opposite(tunnelTo(n)), new MemoryDevice());
    await us.host.add(tunnelTo(n), new MemoryDevice());
  }
  return us;
}

/** Something that is asked for and answers when it is let. */
class Gate {
  asked = 0;
  open: () => void = () => undefined;
  readonly #opened: Promise<void> = new Promise((resolve) => {
    this.open = resolve;
  });

  wait(): Promise<void> {
    this.asked++;
    return this.#opened;
  }
}

/** What no peer takes. */
const SHA1 = { name: 'ecdsa-sha1', authMethod: 14, hash: 1, algorithm: fromHex('300906072a8648ce3d0401') };
const failing: Signer = {
  methods: methodsOf(own.key),
  sign: () => Promise.reject(new Error('the module has lost its key')),
};

describe('a program’s own', () => {
  it('signer with a key that it does not show is waited for, and no other negotiation with it', async () => {
    const gate = new Gate();
    // What a module knows of its key is the certificate.
    const { publicKey } = parseCertificate(own.der);
    const hidden = keySigner(own.key);
    const module: Signer = {
      methods: methodsOf(publicKey),
      sign: async (method, octets) => {
        await gate.wait();
        return await hidden.sign(method, octets);
      },
    };
    const us = await twoTunnels({
      credentialsFor: ({ tunnel: name }) => (name === 'to-2' ? credentials(own, module) : credentials(own)),
    });
    await eventually('the quick one', () => us.isUp('to-3'));
    await eventually('the question', () => gate.asked === 1);
    expect(us.isUp('to-2')).toBe(false);
    gate.open();
    await eventually('the slow one', () => us.isUp('to-2'));
  });

  it('verifier is waited for, and no other negotiation with it', async () => {
    const gate = new Gate();
    const service: Verifier = {
      authorities: verifier.authorities,
      verify: async (auth) => {
        await gate.wait();
        return await verifier.verify(auth);
      },
    };
    const us = await twoTunnels({ verifierFor: (name) => (name === 'to-2' ? service : verifier) });
    await eventually('the quick one', () => us.isUp('to-3'));
    await eventually('the question', () => gate.asked === 1);
    expect(us.isUp('to-2')).toBe(false);
    gate.open();
    await eventually('the slow one', () => us.isUp('to-2'));
  });

  it.each<[string, Partial<HostOptions>, RegExp]>([
    ['signer fails', { credentialsFor: () => credentials(own, failing) }, /the module has lost its key/],
    ['credentials are none', { credentialsFor: () => undefined }, /there is no certificate and key for it/],
    [
      'key can do nothing that the peer takes',
      { credentialsFor: () => credentials(own, { ...failing, methods: [SHA1] }) },
      /our key can do ecdsa-sha1, and the peer takes none of them/,
    ],
    [
      'verifier fails',
      { verifierFor: () => ({ ...verifier, verify: () => Promise.reject(new Error('no answer')) }) },
      /no answer/,
    ],
    ['verifier is none', { verifierFor: () => undefined }, /no authority is trusted here/],
  ])('%s: nothing comes up, and it is told why', async (_, options, why) => {
    const us = await twoTunnels(options);
    await eventually('the failure', () => us.failure('to-2') !== undefined);
    expect(us.failure('to-2')).toMatch(why);
    expect(us.isUp('to-2')).toBe(false);
  });
});

/**
 * The suites that are tried against each peer. Together they use every cipher, integrity algorithm, PRF and group of
 * the table at least once, AEAD and encrypt-then-MAC in either place, ESN both ways, and all four combinations of IP
 * inside and outside.
 */
import type { EspSuite, IkeSuite, Tunnel } from '../support/lab/tunnel.ts';

/** Who carries the peer's ESP. The userspace one (kernel-libipsec) has no ESN; all else both have. */
export type PeerKind = 'userspace' | 'kernel';

export interface Suite {
  readonly ike: IkeSuite;
  readonly esp: EspSuite;
  readonly outer: 4 | 6;
  readonly inner: 4 | 6;
  readonly peers: readonly PeerKind[];
}

const BOTH: readonly PeerKind[] = ['userspace', 'kernel'];
const KERNEL: readonly PeerKind[] = ['kernel'];

/** IKE and ESP as strongSwan writes them, then IP outside and inside. */
function suite(peers: readonly PeerKind[], ike: string, esp: string, outer: 4 | 6, inner: 4 | 6): Suite {
  return { ike: parseIke(ike), esp: parseEsp(esp), outer, inner, peers };
}

const INTEGRITY = /^(sha\d+|aesxcbc|aescmac)$/;

/** `aes128-sha256-prfsha256-x25519`. */
function parseIke(source: string): IkeSuite {
  const parts = source.split('-');
  const prf = parts.find((part) => part.startsWith('prf'));
  const integrity = parts.find((part) => INTEGRITY.test(part));
  const [encryption, dh] = [parts[0], parts.at(-1)];
  if (encryption === undefined || dh === undefined || prf === undefined) throw new Error(`not an IKE suite: ${source}`);
  return { encryption, ...(integrity === undefined ? {} : { integrity }), prf: prf.slice(3), dh };
}

/** `aes128-sha256-x25519-esn`. */
function parseEsp(source: string): EspSuite {
  const [encryption, ...parts] = source.split('-');
  if (encryption === undefined) throw new Error(`not an ESP suite: ${source}`);
  const integrity = parts.find((part) => INTEGRITY.test(part));
  const dh = parts.find((part) => !INTEGRITY.test(part) && part !== 'esn');
  const esn = parts.includes('esn') ? 'yes' : 'no';
  return { encryption, ...(integrity === undefined ? {} : { integrity }), ...(dh === undefined ? {} : { dh }), esn };
}

export const SUITES: readonly Suite[] = [
  suite(BOTH, 'aes128gcm16-prfsha256-x25519', 'aes128gcm16', 4, 4),
  suite(KERNEL, 'aes128gcm16-prfsha256-x25519', 'aes128gcm16-esn', 4, 4),
  suite(BOTH, 'aes256gcm16-prfsha384-ecp384', 'aes256gcm16-ecp384', 6, 6),
  suite(KERNEL, 'aes256gcm16-prfsha512-x448', 'aes256gcm16-x448-esn', 6, 4),
  suite(BOTH, 'chacha20poly1305-prfsha512-x25519', 'chacha20poly1305-x25519', 4, 6),
  suite(KERNEL, 'chacha20poly1305-prfsha256-ecp256', 'chacha20poly1305-esn', 4, 4),
  suite(BOTH, 'aes256gcm8-prfsha256-ecp256', 'aes128gcm8-ecp256', 6, 4),
  suite(BOTH, 'aes192gcm12-prfsha384-ecp521', 'aes192gcm12-ecp521', 4, 4),
  suite(BOTH, 'aes128ccm16-prfsha256-ecp256bp', 'aes128ccm16', 4, 4),
  suite(BOTH, 'aes256ccm8-prfsha384-ecp384bp', 'aes256ccm8-ecp384bp', 4, 4),
  suite(BOTH, 'aes256ccm12-prfsha512-ecp512bp', 'aes128ccm12', 6, 6),
  suite(BOTH, 'aes128-sha256-prfsha256-modp2048', 'aes128-sha256-modp2048', 4, 4),
  suite(KERNEL, 'aes128-sha256-prfsha256-x25519', 'aes128-sha256-esn', 4, 4),
  suite(BOTH, 'aes192-sha384-prfsha384-modp3072', 'aes192-sha384-modp3072', 4, 4),
  suite(BOTH, 'aes256-sha512-prfsha512-modp4096', 'aes256-sha512', 6, 6),
  suite(BOTH, 'aes128-sha1-prfsha1-modp2048', 'aes128-sha1', 4, 4),
  suite(BOTH, 'aes128-aesxcbc-prfaesxcbc-x25519', 'aes128-aesxcbc', 4, 4),
  suite(BOTH, 'aes256-aescmac-prfaescmac-x25519', 'aes256-aescmac', 4, 6),
  suite(BOTH, 'aes128ctr-sha256-prfsha256-x25519', 'aes128ctr-sha256', 4, 4),
  suite(KERNEL, 'aes256ctr-sha512-prfsha512-ecp384', 'aes256ctr-sha512-esn', 6, 6),
  suite(BOTH, 'aes256-sha256-prfsha256-x25519', 'null-sha256', 4, 4),
];

export const PSK = 'interop: a key of 32 characters!';

interface Addresses {
  readonly outer: string;
  readonly inner: string;
  readonly network: string;
}

/** Where the left and the right end live, by IP version. */
export const LEFT: Readonly<Record<4 | 6, Addresses>> = {
  4: { outer: '192.0.2.1', inner: '10.1.0.1', network: '10.1.0.0/24' },
  6: { outer: '2001:db8::1', inner: 'fd00:1::1', network: 'fd00:1::/64' },
};
export const RIGHT: Readonly<Record<4 | 6, Addresses>> = {
  4: { outer: '192.0.2.2', inner: '10.2.0.1', network: '10.2.0.0/24' },
  6: { outer: '2001:db8::2', inner: 'fd00:2::1', network: 'fd00:2::/64' },
};

export function suiteName({ ike, esp, outer, inner }: Suite): string {
  const join = (parts: readonly (string | undefined)[]): string => parts.filter((part) => part !== undefined).join('-');
  const ikeText = join([ike.encryption, ike.integrity, `prf${ike.prf}`, ike.dh]);
  const espText = join([esp.encryption, esp.integrity, esp.dh, esp.esn === 'yes' ? 'esn' : undefined]);
  return `IKE ${ikeText}, ESP ${espText}, IPv${inner} in IPv${outer}`;
}

export function suiteTunnel(name: string, { ike, esp, outer, inner }: Suite): Tunnel {
  return {
    name,
    left: {
      address: LEFT[outer].outer,
      id: { type: 'fqdn', value: 'left.example' },
      inner: [LEFT[inner].network],
      psk: PSK,
    },
    right: {
      address: RIGHT[outer].outer,
      id: { type: 'fqdn', value: 'right.example' },
      inner: [RIGHT[inner].network],
      psk: PSK,
    },
    ike,
    esp,
  };
}

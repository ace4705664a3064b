/** Why an IKE SA can have no CHILD SA: its ESP would not get out. */
import { isIkeOnly } from '../wire/nat.ts';
import type { IkeSession } from './session.ts';

/** ESP has to go in UDP here, and the peer does not do that. */
export function lacksEncapsulation({ env, config, encapsulated }: IkeSession): string | undefined {
  if (encapsulated || (env.rawEsp && config?.nat.mode !== 'force')) return undefined;
  return 'ESP must be encapsulated in UDP, but the peer does not support NAT traversal: enable it on the peer, or disable it here';
}

/** ESP has to go in UDP, and IKE is spoken where there is none (RFC 7296 §2.23). */
export function lacksEspPort({ env, encapsulated, nat, path: { local } }: IkeSession): string | undefined {
  if (!encapsulated || !isIkeOnly(local)) return undefined;
  const translated = nat.localBehindNat || nat.remoteBehindNat;
  return (
    `ESP must be encapsulated in UDP, but the peer sends IKE to port ${local.port}, which carries no ESP: ` +
    `it must move to the port for NAT traversal, 4500${translated || !env.rawEsp ? '' : "; or, as there is no NAT on the path, send ESP directly over IP: encapsulation 'needed' here"}`
  );
}

/** Why an IKE SA can have no CHILD SA: its ESP would not get out. */
import { isIkeOnly } from '../wire/nat.ts';
import type { IkeSession } from './session.ts';

/** ESP has to go in UDP here, and the peer does not do that. */
export function lacksEncapsulation({ env, config, encapsulated }: IkeSession): string | undefined {
  if (encapsulated || (env.rawEsp && config?.nat.mode !== 'force')) return undefined;
  return 'ESP is to go in UDP, and the peer has no NAT traversal: switch it on there, or off here';
}

/** ESP has to go in UDP, and IKE is spoken where there is none (RFC 7296 §2.23). */
export function lacksEspPort({ env, encapsulated, nat, path: { local } }: IkeSession): string | undefined {
  if (!encapsulated || !isIkeOnly(local)) return undefined;
  const translated = nat.localBehindNat || nat.remoteBehindNat;
  return (
    `ESP is to go in UDP, and the peer speaks IKE to port ${local.port}, which carries no ESP: ` +
    `it has to move to the port for NAT traversal, 4500${translated || !env.rawEsp ? '' : "; or, as no NAT is in between, let ESP go straight over IP: encapsulation 'needed' here"}`
  );
}

/**
 * Defaults against the defaults of OpenIKED, which wants no group for a CHILD SA; `childsa … group` demands one.
 *
 * OpenIKED 7.2 sends first and tells its kernel then: as responder the answer that makes a CHILD SA, as initiator the Delete
 * of the one that it has replaced. A packet of that moment finds no SA there, in or out, which its kernel counts; nothing
 * else may be lost.
 */
import { OpenIked } from '../support/lab/openiked.ts';
import { addresses, PSK, ROWS, type Row, testDefaults } from './defaults.ts';

/** In seconds. It rekeys when 85 to 95 of a hundred parts have passed. */
const SHORT = 'ikelifetime 20 lifetime 12';

/** Its own defaults, but for what a row is about, and its name, which would be the guest's. */
function policy(row: Row): string {
  const { near, far, inside, outside } = addresses(row);
  const words = [
    `ikev2 "${row.name}" ${row.initiator === 'ours' ? 'passive' : 'active'} esp from ${outside} to ${inside}`,
    `local ${far} peer ${near}`,
    ...(row.pfs === 'yes' ? ['childsa enc aes-256 auth hmac-sha2-384 group curve25519'] : []),
    `srcid ${far}`,
    ...(row.rekeys === 'theirs' ? [SHORT] : []),
    `psk "${PSK}"`,
  ];
  return words.join(' ');
}

testDefaults({
  name: 'OpenIKED',
  promise: 'lose only what its kernel drops without an SA, whoever begins, whoever rekeys, with a group and without',
  need: 'openiked',
  boot: (lab, namespace, guest) => {
    const configuration = ['set passive', ...ROWS.map(policy), ''].join('\n');
    return OpenIked.boot(lab, namespace, { ...guest, configuration });
  },
  begin: (peer) => peer.activate(),
  // The CREATE_CHILD_SA requests of either side; the other never asks.
  rekeyed: (peer, row) => {
    const { near } = addresses(row);
    const count = (verb: 'send' | 'recv'): number =>
      [...peer.log().matchAll(new RegExp(`: ${verb} CREATE_CHILD_SA req \\d+ peer ${near}:`, 'g'))].length;
    const [theirs, mine] = [count('send'), count('recv')];
    return row.rekeys === 'ours' ? mine > 2 && theirs === 0 : theirs > 2 && mine === 0;
  },
  droppedByIt: async (peer) => {
    const { stdout } = await peer.exec(['cat', '/proc/net/xfrm_stat']);
    const counters = [...stdout.matchAll(/^Xfrm(?:InNoStates|OutNoStates|AcquireError)\s+(\d+)$/gm)];
    return counters.reduce((sum, [, count]) => sum + Number(count), 0);
  },
});

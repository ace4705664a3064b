/**
 * Defaults against the defaults of libreswan, which wants a group for a CHILD SA (`pfs=yes`).
 *
 * Where the two disagree libreswan 4.10 is wrong, and we get along with it: a KE payload without data in an answer without
 * a group (§1.3.1), INVALID_SYNTAX in the place of INVALID_KE_PAYLOAD for another group (§1.3), which it wants to be that of
 * the CHILD SA, not that of the IKE SA since it was rekeyed.
 */
import { Libreswan } from '../support/lab/libreswan.ts';
import { addresses, PSK, ROWS, type Row, testDefaults } from './defaults.ts';

/** Rekeyed four seconds before their end. */
const SHORT = '  salifetime=12s\n  ikelifetime=20s\n  rekeymargin=4s\n  rekeyfuzz=0%\n';

/** Its own defaults, but for what a row is about, and its script for routes: the guest has one, and takes seconds for it. */
function connection(row: Row): string {
  const { near, far, inside, outside } = addresses(row);
  return `conn ${row.name}
  left=${far}
  leftsubnet=${outside}/32
  right=${near}
  rightsubnet=${inside}/32
  authby=secret
  ikev2=insist
  auto=add
  leftupdown=%disabled
${row.pfs === 'no' ? '  pfs=no\n' : ''}${row.rekeys === 'theirs' ? SHORT : ''}`;
}

testDefaults({
  name: 'libreswan',
  promise: 'lose nothing, whoever begins, whoever rekeys, with a group and without',
  need: 'libreswan',
  boot: (lab, namespace, guest) => {
    const configuration = ['config setup\n', ...ROWS.map(connection)].join('\n');
    return Libreswan.boot(lab, namespace, { ...guest, configuration, psk: PSK });
  },
  begin: async (peer, rows) => {
    for (const { name } of rows) await peer.initiate(name);
  },
  rekeyed: (peer, { name, rekeys }) => {
    const role = rekeys === 'ours' ? 'responder' : 'initiator';
    const count = (sa: string): number =>
      [...peer.log().matchAll(new RegExp(`^.*"${name}" #\\d+: ${role} rekeyed ${sa} SA`, 'gm'))].length;
    return count('IKE') > 0 && count('Child') > 1;
  },
});

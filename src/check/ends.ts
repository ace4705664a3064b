/** Whether the two ends meet: addresses, ports, NAT traversal, and who begins (RFC 7296 §2.23, RFC 3948). */

import { type IpAddress, parseAddress, prefixRange, rangeContains } from '../base/address.ts';
import { IKE_PORT } from '../base/ports.ts';
import type { PeerAddress } from '../config/model.ts';
import { peerAddressText } from '../config/text.ts';
import { endPlace, natPlace } from './places.ts';
import { type Checked, type Finding, lineOf, type Place, placeIn } from './report.ts';

export function checkEnds(a: Checked, b: Checked): Finding[] {
  const addresses = [...checkAddress(a, b), ...checkAddress(b, a)];
  const translated = addresses.some(({ topic }) => topic === 'nat');
  return [
    ...addresses,
    ...checkPort(a, b),
    ...checkPort(b, a),
    ...checkStart(a, b),
    ...checkEncapsulation(a, b, translated),
    ...checkNatPort(a, b),
  ];
}

/** Whether `caller` calls where `called` is. */
function checkAddress(caller: Checked, called: Checked): Finding[] {
  const to = caller.document.sa.remote.address;
  const at = called.document.sa.local.address;
  if (to.kind === 'any' || at.kind === 'any' || peerAddressText(to) === peerAddressText(at)) return [];
  const places = [endPlace(caller, 'remote'), endPlace(called, 'local')];
  if (to.kind === 'fqdn' || at.kind === 'fqdn') {
    const [name, other] = to.kind === 'fqdn' ? [to, at] : [at, to];
    const message = `whether the name ${peerAddressText(name)} stands for ${peerAddressText(other)} is not known here: no name was resolved`;
    return [{ level: 'note', topic: 'address', message, places, change: '' }];
  }
  if (isPrivate(at.address) && !isPrivate(to.address)) {
    const message = `${caller.title} connects to ${peerAddressText(to)}, and ${called.title} has the private address ${peerAddressText(at)}: this works only with a NAT that translates one to the other`;
    const change = `with such a NAT, let ${called.title} initiate, or forward UDP ports 500 and ${called.document.sa.ike.nat.port} to it; without one, make the addresses equal`;
    return [{ level: 'warning', topic: 'nat', message, places, change }];
  }
  const message = `${caller.title} connects to ${peerAddressText(to)}, and ${called.title} is at ${peerAddressText(at)}`;
  const change = `write ${peerAddressText(at)} in ${caller.title}, or ${peerAddressText(to)} in ${called.title}`;
  return [{ level: 'error', topic: 'address', message, places, change }];
}

/** RFC 1918, RFC 6598 (behind a carrier's NAT), RFC 4193. */
const PRIVATE = (
  [
    ['10.0.0.0', 8],
    ['172.16.0.0', 12],
    ['192.168.0.0', 16],
    ['100.64.0.0', 10],
    ['fc00::', 7],
  ] as const
).map(([first, length]) => prefixRange(parseAddress(first)!, length));

function isPrivate(address: IpAddress): boolean {
  return PRIVATE.some((range) => rangeContains(range, address));
}

function checkPort(caller: Checked, called: Checked): Finding[] {
  const to = caller.document.sa.remote.port;
  const at = called.document.sa.local.port;
  if (to === at) return [];
  const message = `${caller.title} connects to port ${to}, and ${called.title} listens on port ${at}`;
  const places = [portPlace(caller, 'remote'), portPlace(called, 'local')];
  const change =
    "give this end the same port in both documents: in <local> and <remote>, or in the rule's <src> and <dst>";
  return [{ level: 'error', topic: 'port', message, places, change }];
}

/** A port may stand in the rules alone, in the seed's form directly in the document. */
function portPlace(checked: Checked, which: 'local' | 'remote'): Place {
  const { port, line } = checked.document.sa[which];
  if (checked.lines.has(`sa/${which}`)) return placeIn(checked, line, `<${which} port='${port}'>`);
  const end = which === 'local' ? 'src' : 'dst';
  const short = lineOf(checked, `policy/rule/${end}`, line);
  return placeIn(checked, lineOf(checked, `sp/policy/rule/${end}`, short), `<${end} port='${port}'>`);
}

/** One side must initiate, and know the address of the other. */
function checkStart(a: Checked, b: Checked): Finding[] {
  const callers = [a, b].filter(
    ({ document: { sa } }) => sa.ike.start !== 'respond' && sa.remote.address.kind !== 'any',
  );
  if (callers.length > 0) return [];
  const places = [a, b].map((checked) => {
    const { ike } = checked.document.sa;
    return placeIn(checked, ike.line, `<ike start='${ike.start}'>`);
  });
  const message = 'each waits for the other to initiate';
  const change = "write start='trap' or start='initiate' in one of the two, and the other's address in its <remote>";
  return [{ level: 'error', topic: 'start', message, places, change }];
}

const OFF = 'never';

/** @param translated whether the addresses speak of a NAT between the two */
function checkEncapsulation(a: Checked, b: Checked, translated: boolean): Finding[] {
  const off = [a, b].find(({ document: { sa } }) => sa.ike.nat.encapsulation === OFF);
  if (off === undefined) return [];
  const other = off === a ? b : a;
  const places = [natPlace(off), natPlace(other)];
  const wanted = other.document.sa.ike.nat.encapsulation;
  if (wanted === 'always') {
    const message = `${other.title} sends ESP in UDP, which needs NAT traversal on both sides, and ${off.title} has it switched off`;
    const change = `write traversal='auto' in ${off.title}, or encapsulation='needed' or traversal='off' in ${other.title}`;
    return [{ level: 'error', topic: 'nat', message, places, change }];
  }
  if (!translated) return [];
  const message = `the addresses show a NAT between the two, and ${off.title} has NAT traversal switched off`;
  return [{ level: 'error', topic: 'nat', message, places, change: `write traversal='auto' in ${off.title}` }];
}

/** With NAT traversal IKE moves from port 500 to another, which both must mean. */
function checkNatPort(a: Checked, b: Checked): Finding[] {
  const both = [a, b].map(({ document: { sa } }) => sa);
  if (both.some(({ local, ike: { nat } }) => local.port !== IKE_PORT || nat.encapsulation === OFF)) return [];
  if (a.document.sa.ike.nat.port === b.document.sa.ike.nat.port) return [];
  const message = 'the two use different ports for NAT traversal and ESP in UDP';
  const places = [natPlace(a), natPlace(b)];
  return [
    {
      level: 'error',
      topic: 'port',
      message,
      places,
      change: 'write the same port in <nat> of both; the usual one is 4500',
    },
  ];
}

/** The real addresses of both, as far as the documents tell, or else addresses for examples. */
export function assumedAddresses(
  a: Checked,
  b: Checked,
  hosts: readonly (IpAddress | undefined)[],
): readonly [IpAddress, IpAddress] {
  const known = (address: PeerAddress): IpAddress | undefined => (address.kind === 'ip' ? address.address : undefined);
  const [mine, theirs] = [a.document.sa, b.document.sa];
  const atA = known(mine.local.address) ?? hosts[0] ?? known(theirs.remote.address);
  const atB = known(theirs.local.address) ?? hosts[1] ?? known(mine.remote.address);
  const family = (atA ?? atB)?.family ?? 4;
  const [first, second] = family === 4 ? ['192.0.2.1', '192.0.2.2'] : ['2001:db8::1', '2001:db8::2'];
  return [atA ?? parseAddress(first!)!, atB ?? parseAddress(second!)!];
}

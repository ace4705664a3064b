/**
 * Attribute values: from text to plain data, or an issue that says what is allowed. Each returns
 * `undefined` where the attribute is missing or wrong; the wrong ones have then been reported.
 */
import { type IpAddress, parseAddress } from '../base/address.ts';
import { quote } from './errors.ts';
import type { Issues } from './issues.ts';
import type { PeerAddress, SecretReference } from './model.ts';
import type { XmlNode } from './xml.ts';

export const MAX_U32 = 0xffff_ffff;
const MAX_U64 = 0xffff_ffff_ffff_ffffn;

const SIMPLE_NAME = /^[A-Za-z0-9_+][A-Za-z0-9_+.-]{0,63}$/;
const SIMPLE_NAME_WANTED = 'a name of 1 to 64 letters, digits, _, +, . and -, which . and - do not begin';
const INTERFACE_NAME = /^[A-Za-z0-9_][A-Za-z0-9_.-]{0,14}$/;
const INTERFACE_NAME_WANTED = 'a name of 1 to 15 letters, digits, _, . and - (the kernel allows no more)';
const HOST_NAME = /^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z]([a-z0-9-]{0,61}[a-z0-9])?\.?$/i;
const UUID = /^([0-9a-f]{8})-?([0-9a-f]{4})-?([0-9a-f]{4})-?([0-9a-f]{4})-?([0-9a-f]{12})$/;

export function attributeOf(node: XmlNode, name: string): string | undefined {
  return node.attributes.find((attribute) => attribute.name === name && attribute.prefix === '')?.value;
}

/** A value out of a list that the shape check has already enforced. */
export function readChoice<T extends string>(node: XmlNode, name: string, values: readonly T[]): T | undefined {
  const found = attributeOf(node, name);
  return values.find((value) => value === found);
}

export function readFlag(node: XmlNode, name: string): boolean {
  return attributeOf(node, name) === 'yes';
}

export interface IntegerRange {
  readonly min: number;
  readonly max: number;
  /** For the message: what may stand there beside a number, ` or 'off'`. */
  readonly orElse?: string;
}

/** A whole number in decimal digits. @param more what else the caller takes, for the message */
export function readInteger(
  issues: Issues,
  node: XmlNode,
  name: string,
  { min, max, orElse = '' }: IntegerRange,
): number | undefined {
  const found = attributeOf(node, name);
  if (found === undefined) return undefined;
  const value = /^-?[0-9]{1,10}$/.test(found) ? Number(found) : Number.NaN;
  if (value >= min && value <= max) return value;
  issues.badValue(node, name, found, `a whole number from ${min} to ${max}${orElse}`);
  return undefined;
}

/** A whole number of 64 bits, at least 1. */
export function readAmount(issues: Issues, node: XmlNode, name: string): bigint | undefined {
  const found = attributeOf(node, name);
  if (found === undefined) return undefined;
  const value = /^[0-9]{1,20}$/.test(found) ? BigInt(found) : 0n;
  if (value >= 1n && value <= MAX_U64) return value;
  issues.badValue(
    node,
    name,
    found,
    `a whole number from 1 to ${MAX_U64}`,
    `a whole number from 1 is required; leave it out for no limit`,
  );
  return undefined;
}

export function readPort(issues: Issues, node: XmlNode, name = 'port'): number | undefined {
  const found = attributeOf(node, name);
  if (found === undefined) return undefined;
  const value = parsePort(found);
  if (value === undefined || value === 0) {
    issues.badValue(node, name, found, 'a port from 1 to 65535');
    return undefined;
  }
  return value;
}

export function parsePort(text: string): number | undefined {
  const value = /^[0-9]{1,5}$/.test(text) ? Number(text) : Number.NaN;
  return value <= 0xffff ? value : undefined;
}

export function readSimpleName(issues: Issues, node: XmlNode, name: string): string | undefined {
  return readPattern(issues, node, name, SIMPLE_NAME, SIMPLE_NAME_WANTED);
}

export function readInterfaceName(issues: Issues, node: XmlNode, name: string): string | undefined {
  const found = attributeOf(node, name);
  if (found !== undefined && found.length > 15 && /^[\w.-]+$/.test(found)) {
    const why = `it has ${found.length} characters, and the kernel allows an interface at most 15; shorten it`;
    issues.badValue(node, name, found, INTERFACE_NAME_WANTED, why);
    return undefined;
  }
  return readPattern(issues, node, name, INTERFACE_NAME, INTERFACE_NAME_WANTED);
}

/** An absolute path of a file or folder. */
export function readPath(issues: Issues, node: XmlNode, name: string): string | undefined {
  return readPattern(issues, node, name, /^\/.+$/, 'an absolute path, one that begins with /');
}

export function readNotEmpty(issues: Issues, node: XmlNode, name: string): string | undefined {
  return readPattern(issues, node, name, /\S/, 'a text that is not empty');
}

function readPattern(issues: Issues, node: XmlNode, name: string, pattern: RegExp, wanted: string): string | undefined {
  const found = attributeOf(node, name);
  if (found === undefined || pattern.test(found)) return found;
  issues.badValue(node, name, found, wanted);
  return undefined;
}

export function isTunnelName(text: string): boolean {
  return SIMPLE_NAME.test(text);
}

export const TUNNEL_NAME_WANTED: string = SIMPLE_NAME_WANTED;

/** Lower case with hyphens; `undefined` when it is no UUID. The hyphens may be left out, as in libvirt. */
export function parseUuid(text: string): string | undefined {
  return UUID.exec(text.trim().toLowerCase())?.slice(1).join('-');
}

export const UUID_WANTED = 'a UUID such as 7e5f1c8e-6d0e-4b7e-9a55-0c3f2f6d1a10';

/** `uuid='…'` or `usage='…'`. */
export function readSecretReference(issues: Issues, node: XmlNode): SecretReference | undefined {
  const uuid = attributeOf(node, 'uuid');
  const usage = attributeOf(node, 'usage');
  const allowed = "uuid='…' or usage='…'";
  if (uuid !== undefined && usage !== undefined) {
    issues.add(node, `both uuid and usage are given; one of them names the secret. Remove the other`, { allowed });
    return undefined;
  }
  if (uuid !== undefined) {
    const value = parseUuid(uuid);
    if (value !== undefined) return { by: 'uuid', uuid: value };
    issues.badValue(node, 'uuid', uuid, UUID_WANTED);
    return undefined;
  }
  if (usage === undefined) {
    issues.add(node, `it does not say which secret; add ${allowed}`, { allowed });
    return undefined;
  }
  const text = readNotEmpty(issues, node, 'usage');
  return text === undefined ? undefined : { by: 'usage', usage: text };
}

const PEER_WANTED = "'any', an IP address or a host name";

/** The address of an end: `any` (also when empty or left out), an IP address or a host name. */
export function readPeerAddress(issues: Issues, node: XmlNode | undefined): PeerAddress | undefined {
  const found = node === undefined ? undefined : attributeOf(node, 'address');
  if (node === undefined || found === undefined || found === '' || found === 'any') return { kind: 'any' };
  const address = parseAddress(found);
  if (address !== undefined) {
    const why = unusableAsEnd(address);
    if (why === undefined) return { kind: 'ip', address };
    issues.badValue(node, 'address', found, PEER_WANTED, why);
    return undefined;
  }
  if (isHostName(found)) return { kind: 'fqdn', name: found.toLowerCase().replace(/\.$/, '') };
  issues.badValue(node, 'address', found, PEER_WANTED, `${notAnAddress(found)}; ${PEER_WANTED} is required`);
  return undefined;
}

function unusableAsEnd({ family, value }: IpAddress): string | undefined {
  if (value === 0n) return "this is no host's address; write 'any' where the address is not known";
  const multicast = family === 4 ? value >> 28n === 0xen : value >> 120n === 0xffn;
  const broadcast = family === 4 && value === 0xffff_ffffn;
  return multicast || broadcast ? 'a multicast or broadcast address cannot be the end of a tunnel' : undefined;
}

/** Why a text is no IP address. */
export function notAnAddress(text: string): string {
  if (text.includes('/')) return `${quote(text)} is not an address; write the prefix length as prefixlen='…'`;
  if (text.includes(':')) return `${quote(text)} is not an IPv6 address`;
  return /^[0-9.]+$/.test(text) ? `${quote(text)} is not an IPv4 address` : `${quote(text)} is not an IP address`;
}

/** Whether the text is a host name, with or without a dot at its end. */
function isHostName(text: string): boolean {
  return text.length <= 253 && HOST_NAME.test(text);
}

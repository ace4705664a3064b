/**
 * libvirt's `<network>` documents, as far as a tunnel is concerned: how a network names its tunnel, and what of the
 * network decides whether a tunnel can hold its packets.
 *
 * libvirt keeps elements of others in `<metadata>`, one for each namespace, and drops them anywhere else. So a network
 * names its tunnel there:
 *
 * ```xml
 * <metadata>
 *   <sectunnel:tunnel xmlns:sectunnel='urn:sectunnel:network:1' name='sec-net' mode='exclusive'/>
 * </metadata>
 * ```
 */
import { addressBits, type IpAddress, parseAddress, prefixRange } from '../base/address.ts';
import { Issues } from '../config/issues.ts';
import { checkShape, type ElementShape } from '../config/shape.ts';
import { attributeOf, isTunnelName, parseUuid, readChoice, TUNNEL_NAME_WANTED } from '../config/values.ts';
import { childElements, textContent, withXml, type XmlNode } from '../config/xml.ts';
import { TUNNEL_NAMESPACE } from './namespace.ts';

export const PIN_MODES = ['exclusive', 'selective'] as const;
/**
 * `exclusive`: all that leaves or enters the network goes through the tunnel, nothing else is forwarded. `selective`:
 * what the tunnel's policy protects goes through the tunnel, or nowhere; the rest as the network's own `<forward>` says.
 */
export type PinMode = (typeof PIN_MODES)[number];

/** Which tunnel holds a network. */
export interface NetworkPin {
  readonly tunnel: string;
  readonly mode: PinMode;
}

export interface NetworkForward {
  /** `none` for an isolated network; else what libvirt calls it. */
  readonly mode: string;
  /** The device that libvirt's own rules let packets pass by. */
  readonly device: string | undefined;
}

export interface NetworkPrefix {
  readonly address: IpAddress;
  readonly prefixLength: number;
}

export interface LibvirtNetwork {
  readonly name: string;
  /** Lower case, with hyphens; one that is not defined yet may have none. */
  readonly uuid: string | undefined;
  /** libvirt chooses one when a network is defined without. */
  readonly bridge: string | undefined;
  readonly forward: NetworkForward;
  /** Networks that the host reaches by the bridge: its own addresses there, and what is routed behind guests. */
  readonly prefixes: readonly NetworkPrefix[];
  /** Whether the host answers DNS queries of guests, and so forwards them. */
  readonly dns: boolean;
  readonly pin: NetworkPin | undefined;
}

const TUNNEL_SHAPE: ElementShape = {
  attributes: { name: { required: true }, mode: { values: PIN_MODES } },
};

/**
 * A network out of what libvirt shows of it: a definition, the input of a hook (`<hookData>`), a file of its run folder
 * (`<networkstatus>`).
 * @param source what to call it in messages
 * @throws DocumentError for what is no network, or names its tunnel in a way that is not understood
 */
export function readNetwork(xml: string | Uint8Array, source?: string): LibvirtNetwork {
  return withXml(xml, source, (root) => {
    const issues = new Issues();
    const network = networkOf(issues, root, source);
    const read = readElement(issues, network);
    issues.throwIfAny(source);
    return read;
  });
}

/** @throws DocumentError when there is none */
export function networkOf(issues: Issues, root: XmlNode, source: string | undefined): XmlNode {
  const wrapped = root.name === 'hookData' || root.name === 'networkstatus';
  const network = wrapped ? childElements(root, 'network')[0] : root;
  if (network?.name === 'network' && network.namespace === '') return network;
  const found = wrapped ? `<${root.name}> without a network` : `<${root.name}>`;
  issues.add(root, `a libvirt <network> is required, this is ${found}`, { found, allowed: '<network>' });
  issues.throwIfAny(source);
  return root;
}

/** What cannot be read is added to `issues`. */
export function readElement(issues: Issues, network: XmlNode): LibvirtNetwork {
  const name = textOf(network, 'name');
  if (name === undefined || name === '') issues.add(network, 'it has no <name>; add one');
  return {
    name: name ?? '',
    uuid: parseUuid(textOf(network, 'uuid') ?? ''),
    bridge: attributeIn(network, 'bridge', 'name'),
    forward: readForward(network),
    prefixes: [...childElements(network, 'ip'), ...childElements(network, 'route')].flatMap(
      (node) => readPrefix(issues, node) ?? [],
    ),
    dns: attributeIn(network, 'dns', 'enable') !== 'no',
    pin: readPin(issues, network),
  };
}

function readForward(network: XmlNode): NetworkForward {
  const forward = childElements(network, 'forward')[0];
  if (forward === undefined) return { mode: 'none', device: undefined };
  const [first] = childElements(forward, 'interface');
  return {
    mode: attributeOf(forward, 'mode') ?? 'nat',
    device: attributeOf(forward, 'dev') ?? (first && attributeOf(first, 'dev')),
  };
}

/** The network that an address with a prefix length or a netmask stands in. libvirt's defaults are those of classes. */
function readPrefix(issues: Issues, node: XmlNode): NetworkPrefix | undefined {
  const text = attributeOf(node, 'address') ?? '';
  const address = parseAddress(text);
  const prefixLength = address && prefixLengthOf(address, node);
  if (address === undefined || prefixLength === undefined) {
    issues.badValue(node, 'address', text, 'an IP address with a prefix or a netmask');
    return undefined;
  }
  return { address: prefixRange(address, prefixLength).start, prefixLength };
}

function prefixLengthOf({ family, value }: IpAddress, node: XmlNode): number | undefined {
  const [prefix, netmask] = [attributeOf(node, 'prefix'), attributeOf(node, 'netmask')];
  if (prefix !== undefined) {
    const length = /^[0-9]{1,3}$/.test(prefix) ? Number(prefix) : Number.NaN;
    return length <= addressBits(family) ? length : undefined;
  }
  if (netmask !== undefined) {
    const mask = parseAddress(netmask);
    const zeros = mask?.family === 4 ? ((1n << 32n) - mask.value).toString(2) : '';
    return /^10*$/.test(zeros) ? 33 - zeros.length : undefined;
  }
  if (family === 6) return 64;
  const first = value >> 24n;
  return first < 128n ? 8 : first < 192n ? 16 : 24;
}

/** The element in `<metadata>` that is ours. */
export function pinElement(network: XmlNode): XmlNode | undefined {
  return childElements(network, 'metadata')
    .flatMap((metadata) => childElements(metadata))
    .find(({ namespace }) => namespace === TUNNEL_NAMESPACE);
}

function readPin(issues: Issues, network: XmlNode): NetworkPin | undefined {
  const node = pinElement(network);
  if (node === undefined) return undefined;
  if (node.name !== 'tunnel') {
    issues.add(
      node,
      `<tunnel> is the only element of the namespace '${TUNNEL_NAMESPACE}'; write <${prefixed(node, 'tunnel')}>`,
    );
    return undefined;
  }
  checkShape(issues, node, TUNNEL_SHAPE);
  const tunnel = readTunnelName(issues, node, 'name');
  const mode = readChoice(node, 'mode', PIN_MODES) ?? 'exclusive';
  return tunnel === undefined ? undefined : { tunnel, mode };
}

function prefixed({ prefix }: XmlNode, name: string): string {
  return prefix === '' ? name : `${prefix}:${name}`;
}

/** `undefined` where the attribute is missing or has been complained about. */
export function readTunnelName(issues: Issues, node: XmlNode, attribute: string): string | undefined {
  const found = attributeOf(node, attribute);
  if (found === undefined || isTunnelName(found)) return found;
  issues.badValue(node, attribute, found, TUNNEL_NAME_WANTED);
  return undefined;
}

function textOf(node: XmlNode, name: string): string | undefined {
  const child = childElements(node, name)[0];
  return child && textContent(child).trim();
}

function attributeIn(node: XmlNode, element: string, attribute: string): string | undefined {
  const child = childElements(node, element)[0];
  return child && attributeOf(child, attribute);
}

/**
 * Why a network cannot be held by its tunnel; `undefined` when it can. A network that names no tunnel always can.
 * @param device of the tunnel
 */
export function pinProblem({ forward, pin }: LibvirtNetwork, device: string): string | undefined {
  if (pin === undefined) return undefined;
  const { mode } = forward;
  if (!ROUTED.includes(mode)) {
    return `mode='${mode}' hands frames to another device, past this host's routing: no tunnel can hold them; write mode='route'`;
  }
  if (pin.mode === 'exclusive') {
    if (mode === 'none') {
      return `the network is isolated, so libvirt forwards nothing, to the tunnel neither; write <forward mode='route' dev='${device}'/>`;
    }
    if (mode === 'nat') {
      return `mode='nat' would hide the guests' addresses from the tunnel's policy; write <forward mode='route' dev='${device}'/>`;
    }
    if (forward.device !== undefined && forward.device !== device) {
      return `dev='${forward.device}' has libvirt forward to that device alone, and the tunnel's is ${device}; write <forward mode='route' dev='${device}'/>`;
    }
    return undefined;
  }
  if (mode === 'none') {
    return "the network is isolated, so libvirt forwards nothing, to the tunnel neither; write mode='exclusive' and <forward mode='route'/>";
  }
  if (forward.device !== undefined) {
    return `dev='${forward.device}' has libvirt forward to that device alone, to the tunnel's (${device}) not; leave it out`;
  }
  return undefined;
}

/** Modes in which packets pass the routing of this host. `none` is an isolated network. */
const ROUTED: readonly string[] = ['none', 'nat', 'route', 'open'];

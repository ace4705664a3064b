/** The grammar of `<sectunnel>` as a table for `checkShape`; `schema/sectunnel.rng` says the same to others. */
import type { AttributeShape, ElementShape } from './shape.ts';

export const START_VALUES = ['initiate', 'trap', 'respond'] as const;
export const DPD_ACTIONS = ['clear', 'trap', 'restart'] as const;
export const NAT_TRAVERSALS = ['auto', 'force', 'off'] as const;
/** Where NAT detection decides: ESP in UDP whatever it finds, or only where it finds a NAT. */
export const NAT_ENCAPSULATIONS = ['always', 'needed'] as const;
export const ROUTE_VALUES = ['auto', 'none'] as const;
export const IPV6_VALUES = ['pass', 'block'] as const;
export const AUTH_SIDES = ['both', 'local', 'remote'] as const;
export const AUTH_TYPES = ['psk', 'x509'] as const;
export const X509_SOURCES = ['server', 'client', 'file'] as const;
export const REVOCATION_POLICIES = ['strict', 'ifpresent'] as const;
export const ID_TYPES = ['address', 'fqdn', 'email', 'dn', 'keyid'] as const;
export const DIRECTIONS = ['in', 'out', 'both'] as const;
export const ACTIONS = ['ipsec', 'none', 'discard'] as const;
export const TFC_PADDINGS = ['none', 'multiple', 'fixed', 'mtu'] as const;
export const RULE_PROTOCOLS = ['esp', 'ah', 'ipcomp'] as const;
export const RULE_MODES = ['tunnel', 'transport'] as const;

/** Proposals of one SA. */
const MAX_PROPOSALS = 32;
/** Ranges of one side: with `upperspec any` and ports each becomes three selectors, of which a TS payload holds 255. */
const MAX_RANGES = 64;
/** `sp` elements, or policies of the flat form. */
const MAX_SPS = 1_024;
const MAX_ALLOWED_NAMES = 256;

const any: AttributeShape = {};
const required: AttributeShape = { required: true };
const yesNo: AttributeShape = { values: ['yes', 'no'] };
const text: ElementShape = { content: 'text' };

const secret: ElementShape = { attributes: { uuid: any, usage: any } };
const file: ElementShape = { attributes: { file: required } };

const peer: ElementShape = {
  attributes: { address: any, port: any },
  children: { id: { shape: { attributes: { type: { required: true, values: ID_TYPES } }, content: 'text' } } },
};

const x509: ElementShape = {
  attributes: { source: { values: X509_SOURCES }, pkipath: any, commonname: yesNo, sha1: yesNo },
  children: {
    ca: { shape: file },
    cert: { shape: file },
    key: { shape: { ...file, children: { secret: { shape: secret } } } },
    crl: { shape: { attributes: { file: any, fetch: yesNo, policy: { values: REVOCATION_POLICIES } } } },
    ocsp: { shape: { attributes: { policy: { values: REVOCATION_POLICIES } } } },
    allow: { shape: { attributes: { dn: required } }, max: MAX_ALLOWED_NAMES },
  },
};

const auth: ElementShape = {
  attributes: { type: { required: true, values: AUTH_TYPES }, side: { values: AUTH_SIDES } },
  children: { secret: { shape: secret }, x509: { shape: x509 } },
};

const algorithms = { encryption: required, integrity: any, dh: any } as const;
const times = { soft: any, hard: any, jitter: any } as const;

const ike: ElementShape = {
  attributes: { version: { values: ['2'] }, start: { values: START_VALUES } },
  children: {
    proposal: { shape: { attributes: { ...algorithms, prf: any } }, max: MAX_PROPOSALS },
    lifetime: { shape: { attributes: times } },
    dpd: { shape: { attributes: { interval: any, action: { values: DPD_ACTIONS } } } },
    fragmentation: { shape: { attributes: { size: required } } },
    nat: {
      shape: {
        attributes: {
          traversal: { values: NAT_TRAVERSALS },
          encapsulation: { values: NAT_ENCAPSULATIONS },
          port: any,
          keepalive: any,
        },
      },
    },
  },
};

const esp: ElementShape = {
  children: {
    proposal: { shape: { attributes: { ...algorithms, esn: yesNo } }, max: MAX_PROPOSALS },
    lifetime: { shape: { attributes: { ...times, bytes: any, packets: any } } },
    replay: { shape: { attributes: { window: required } } },
    outer: { shape: { attributes: { dscp: required } } },
    tfc: { shape: { attributes: { padding: { values: TFC_PADDINGS }, size: any, dummies: any } } },
  },
};

const range: ElementShape = { attributes: { address: required, prefixlen: any, end: any, port: any, pfp: yesNo } };
const upperspec: ElementShape = { attributes: { protocol: required, type: any, code: any, pfp: yesNo } };
const endPoint: ElementShape = { attributes: { address: any, port: any } };

const rule: ElementShape = {
  attributes: {
    protocol: { required: true, values: RULE_PROTOCOLS },
    mode: { required: true, values: RULE_MODES },
    level: any,
  },
  children: { src: { shape: endPoint }, dst: { shape: endPoint } },
};

const policy: ElementShape = {
  attributes: { direction: { required: true, values: DIRECTIONS }, action: { required: true, values: ACTIONS } },
  children: { rule: { shape: rule, max: 8 } },
};

const sp: ElementShape = {
  attributes: { name: any, priority: any },
  children: {
    src_range: { shape: range, min: 1, max: MAX_RANGES },
    dst_range: { shape: range, min: 1, max: MAX_RANGES },
    upperspec: { shape: upperspec, min: 1 },
    policy: { shape: policy, min: 1, max: 3 },
  },
};

export const SECTUNNEL_SHAPE: ElementShape = {
  attributes: { type: { required: true, values: ['ipsec'] } },
  children: {
    name: { shape: text },
    uuid: { shape: text },
    title: { shape: text },
    description: { shape: text },
    metadata: { shape: { content: 'anything' } },
    device: {
      shape: {
        attributes: {
          ...{ name: any, mtu: any, table: any, netns: any, vrf: any },
          ...{ routes: { values: ROUTE_VALUES }, ipv6: { values: IPV6_VALUES } },
        },
      },
    },
    secret: { shape: secret },
    sa: {
      shape: {
        attributes: { vrf: any },
        children: {
          local: { shape: peer },
          remote: { shape: peer },
          auth: { shape: auth, max: 2 },
          ike: { shape: ike },
          esp: { shape: esp },
          redundancy: { shape: { attributes: { group: required, preference: any } } },
        },
      },
    },
    sp: { shape: sp, max: MAX_SPS },
    src_range: { shape: range, max: MAX_SPS * MAX_RANGES },
    dst_range: { shape: range, max: MAX_SPS * MAX_RANGES },
    upperspec: { shape: upperspec, max: MAX_SPS },
    policy: { shape: policy, max: MAX_SPS },
  },
};

/**
 * The verbs of the control protocol: what each takes, and what it gives. This is their one declaration: the types of daemon
 * and client are made of it, and so is the check of what comes over the socket (`parameters.ts`).
 */
import type { Explanation } from '../explain/explanation.ts';
import type {
  DefineResult,
  EachResult,
  ListResult,
  NetImportResult,
  NetworkInfo,
  PkiCheckResult,
  ProbeResult,
  RekeyedResult,
  ReloadResult,
  SecretList,
  StartResult,
  StatusResult,
  TunnelInfo,
} from './results.ts';

/** The kinds of parameters. */
export interface Kinds {
  /** A name, a path, an address: no document. */
  text: string;
  /** XML. */
  document: string;
  flag: boolean;
  /** ICMP types and codes, 0 to 255. */
  octet: number;
  /** At least 1. */
  count: number;
  names: readonly string[];
  documents: readonly { readonly xml: string; readonly source: string }[];
}

/** With a question mark: it may be left out. */
export type Kind = keyof Kinds | `${keyof Kinds}?`;

/**
 * What each verb takes. `name` is a tunnel's name or UUID; `source` is what messages call the document; a flag that is left
 * out is false.
 */
export const VERBS = {
  define: { xml: 'document', source: 'text?' },
  /** Each of several. What does not fit a request goes into several. */
  'define-each': { documents: 'documents' },
  /**
   * Does `verb` to each of several tunnels, or to all to which it can be done: `start`, `restart`, `destroy`, `undefine`,
   * `autostart` or `no-autostart`.
   */
  each: { verb: 'text', names: 'names?', all: 'flag?' },
  undefine: { name: 'text' },
  create: { xml: 'document', source: 'text?' },
  start: { name: 'text' },
  restart: { name: 'text' },
  destroy: { name: 'text' },
  /** Of each IKE SA: whether the peer answers within these seconds (10 when left out). */
  probe: { name: 'text', seconds: 'count?' },
  /** All SAs; `ike`: the IKE SAs, `child`: the CHILD SAs of that child. */
  rekey: { name: 'text', ike: 'flag?', child: 'text?' },
  reauth: { name: 'text' },
  reset: { name: 'text' },
  /** `plan`: says what it would do, and does nothing. */
  reload: { plan: 'flag?' },
  autostart: { name: 'text', enable: 'flag' },
  /** With neither flag: the running document of a tunnel that is active, else the kept one. */
  update: { xml: 'document', source: 'text?', live: 'flag?', config: 'flag?' },
  /**
   * `patterns`: names, UUIDs and patterns of names; `state`, `sort`: as in `selection.ts`; `limit`: how many at most. What is left out
   * excludes none; a flag that is false excludes what it names.
   */
  list: {
    patterns: 'names?',
    state: 'text?',
    sort: 'text?',
    limit: 'count?',
    active: 'flag?',
    persistent: 'flag?',
    autostart: 'flag?',
  },
  info: { name: 'text' },
  dumpxml: { name: 'text', inactive: 'flag?' },
  /** As `list`; `name`: of this tunnel alone. */
  status: { name: 'text?', patterns: 'names?', state: 'text?', sort: 'text?', limit: 'count?' },
  /** As `ExplainQuestion`. */
  explain: {
    name: 'text',
    src: 'text',
    dst: 'text',
    proto: 'text',
    direction: 'text?',
    type: 'octet?',
    code: 'octet?',
  },
  'pki-check': { name: 'text' },
  /** Without a name: of all tunnels. */
  event: { name: 'text?' },
  'net-import': { xml: 'document', source: 'text?', define: 'flag?' },
  'net-list': {},
  /** Of libvirt's hook: a network is about to start (operation `start`), or has stopped (`stopped`). */
  'network-hook': { network: 'text', operation: 'text', xml: 'document' },
  'secret-define': { xml: 'document', source: 'text?' },
  /** `offer` names where the value is taken from (`hand-over.ts`). */
  'secret-set-value': { uuid: 'text', offer: 'text' },
  'secret-list': {},
  'secret-undefine': { uuid: 'text' },
} as const;

export type Verb = keyof typeof VERBS;

type Value<K> = K extends `${infer Base extends keyof Kinds}?` ? Kinds[Base] : K extends keyof Kinds ? Kinds[K] : never;

type Optional<T> = { [P in keyof T]: T[P] extends `${string}?` ? P : never }[keyof T];

export type Params<V extends Verb> = V extends Verb ? Taken<(typeof VERBS)[V]> : never;

type Taken<T> = {
  readonly [P in Exclude<keyof T, Optional<T>>]: Value<T[P]>;
} & {
  readonly [P in Optional<T>]?: Value<T[P]> | undefined;
};

export interface Results extends Record<Verb, unknown> {
  define: DefineResult;
  'define-each': EachResult;
  each: EachResult;
  undefine: { readonly name: string };
  create: DefineResult;
  start: StartResult;
  restart: StartResult;
  destroy: { readonly name: string };
  probe: ProbeResult;
  rekey: RekeyedResult;
  reauth: RekeyedResult;
  reset: { readonly name: string };
  reload: ReloadResult;
  autostart: { readonly name: string };
  update: DefineResult;
  list: ListResult;
  info: TunnelInfo;
  dumpxml: { readonly xml: string };
  status: StatusResult;
  explain: Explanation;
  'pki-check': PkiCheckResult;
  event: { readonly subscribed: true };
  'net-import': NetImportResult;
  'net-list': { readonly networks: readonly NetworkInfo[] };
  /** The tunnel that holds the network, where one does. */
  'network-hook': { readonly tunnel?: string };
  'secret-define': { readonly uuid: string };
  'secret-set-value': { readonly uuid: string; readonly warnings: readonly string[] };
  'secret-list': SecretList;
  'secret-undefine': { readonly uuid: string };
}

/** What the main thread and a verifier thread say to each other: plain data that is copied. */

import type { PathOptions } from '../path.ts';
import type { FetchRequest } from '../revocation/online.ts';
import type { PeerAuth, Verdict } from '../types.ts';

/** The options of a verifier, certificates and lists as DER. */
export interface TrustMaterial {
  readonly anchors: readonly Uint8Array[];
  readonly intermediates: readonly Uint8Array[];
  readonly crls: readonly Uint8Array[];
  readonly crlPolicy: PathOptions['crlPolicy'] | undefined;
  /** What is asked over the network. */
  readonly online: { readonly ocsp: boolean; readonly lists: boolean } | undefined;
  readonly allowedDns: readonly string[] | undefined;
  readonly allowCommonName: boolean | undefined;
  readonly allowSha1: boolean | undefined;
  readonly extendedKeyUsage: PathOptions['extendedKeyUsage'] | undefined;
  readonly clockSkew: number | undefined;
}

export type ThreadCommand =
  /** `trust` is the digest of what peers are judged by, which the thread keeps, or asks for. */
  | { readonly type: 'judge'; readonly id: number; readonly trust: string; readonly auth: PeerAuth }
  | { readonly type: 'trust'; readonly trust: string; readonly material: TrustMaterial }
  | {
      readonly type: 'fetched';
      readonly fetch: number;
      readonly answer: { readonly bytes: Uint8Array } | { readonly error: string };
    };

export type ThreadReport =
  | { readonly type: 'ready' }
  | { readonly type: 'need-trust'; readonly trust: string }
  /** From here on a judgement costs time that the peer's certificates have a say in. */
  | { readonly type: 'judging'; readonly id: number }
  /** What is left of a judgement is asked over the network: the thread can do something else meanwhile. */
  | { readonly type: 'waiting'; readonly id: number }
  | { readonly type: 'judged'; readonly id: number; readonly verdict: Verdict }
  /** A bug of ours, or a certificate that cannot be read although it could before. */
  | { readonly type: 'failed'; readonly id: number; readonly error: string }
  | { readonly type: 'fetch'; readonly fetch: number; readonly request: FetchRequest }
  /** An address gave no revocation status. */
  | { readonly type: 'revocation-unknown'; readonly text: string };

/** Algorithms and keys as they stand in records (`base/record/codec.ts`): algorithms by the names of the table. */
import { type Codec, field, named, optional, record, secret } from '../base/record/codec.ts';
import { dhGroupByName, encryptionByName, integrityByName, prfByName } from './algorithms.ts';
import type { CipherKeys, CipherSuite, DhGroup, PrfAlgorithm } from './types.ts';

const nameOf = ({ name }: { readonly name: string }): string => name;

export const prfCodec: Codec<PrfAlgorithm> = named('PRF', nameOf, prfByName);
export const dhGroupCodec: Codec<DhGroup> = named('group', nameOf, dhGroupByName);

export const cipherSuiteCodec: Codec<CipherSuite> = record<CipherSuite>({
  encryption: field(1, named('cipher', nameOf, encryptionByName)),
  integrity: optional(2, named('integrity algorithm', nameOf, integrityByName)),
});

/** What is read are views of the record. */
export const cipherKeysCodec: Codec<CipherKeys> = record<CipherKeys>({
  encryption: field(1, secret),
  integrity: field(2, secret),
});

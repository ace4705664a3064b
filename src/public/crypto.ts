/**
 * What engines and endpoints need of cryptography: proposals, the interface of a provider, and a provider that is JavaScript
 * alone. Providers that use Node's or the system's libraries are in `sectunnel` and `sectunnel/linux`.
 *
 * @module sectunnel/crypto
 */
export { defaultEspProposals, defaultIkeProposals } from '../crypto/algorithms.ts';
export { nobleProvider } from '../crypto/noble/provider.ts';
export type { EspProposal, IkeProposal } from '../crypto/proposal.ts';
export { ProposalError, parseEspProposalString, parseIkeProposalString } from '../crypto/proposal-text.ts';
export { combineProviders, ProviderUnavailableError } from '../crypto/provider.ts';
export { selfTest } from '../crypto/selftest.ts';
export type {
  Algorithm,
  CipherKeys,
  CipherSuite,
  CryptoProvider,
  DhGroup,
  DhKeyPair,
  EncryptionAlgorithm,
  IntegrityAlgorithm,
  PacketCipher,
  Prf,
  PrfAlgorithm,
  RandomSource,
} from '../crypto/types.ts';

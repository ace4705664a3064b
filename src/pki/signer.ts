/** Signs with a private key that this process holds. */
import type { KeyObject } from 'node:crypto';
import { type MethodOptions, methodsOf, schemeOfMethod } from './methods.ts';
import { fitsKey, keyProblem } from './scheme.ts';
import { makeSignature } from './signature.ts';
import type { Signer } from './types.ts';

/** @throws Error, for people, when IKE cannot use the key */
export function keySigner(key: KeyObject, options: MethodOptions = {}): Signer {
  const problem = keyProblem(key);
  if (problem !== undefined) throw new Error(`the key cannot be used: ${problem}`);
  return {
    methods: methodsOf(key, options),
    sign: async (method, octets) => {
      const scheme = schemeOfMethod(method);
      if (scheme === undefined || !fitsKey(scheme, key)) {
        throw new Error(`the key is ${key.asymmetricKeyType} and cannot sign with ${method.name}`);
      }
      return await makeSignature(scheme, key, octets);
    },
  };
}

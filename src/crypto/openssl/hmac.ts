/** The ICV of a packet by HMAC (RFC 2104, RFC 4868) on an EVP_MAC context that lives as long as its key. */
import { writeU32 } from '../../base/bytes.ts';
import { addressOf, alignedMemory } from '../../sys/native-memory.ts';
import { releaseOnce } from '../../sys/release.ts';
import type { HmacHash } from '../macs.ts';
import type { PacketMac } from '../packet.ts';
import { evp, opensslFailure, parameter } from './evp.ts';

/** Fields of a MAC's memory: the digest of up to 64 bytes, its length, the high half of a sequence number. */
const OUT_LENGTH_AT = 64;
const ESN_AT = 72;
const MAC_MEMORY = 80;
const LARGEST_DIGEST = 64;
const ESN_LENGTH = 4;

export function opensslHmac(hash: HmacHash, key: Uint8Array): PacketMac {
  const { macInit, macUpdate, macFinal, freeMacContext } = evp();
  const context = keyedContext(hash, key);
  const { bytes, address } = alignedMemory(MAC_MEMORY);
  const outLength = address + OUT_LENGTH_AT;
  const esn = address + ESN_AT;
  const mac: PacketMac = {
    icv(buffer, start, end, esnHigh) {
      if (esnHigh >= 0) writeU32(bytes, ESN_AT, esnHigh);
      const done =
        macInit(context, 0, 0, 0) === 1 &&
        macUpdate(context, addressOf(buffer) + start, end - start) === 1 &&
        (esnHigh < 0 || macUpdate(context, esn, ESN_LENGTH) === 1) &&
        macFinal(context, address, outLength, LARGEST_DIGEST) === 1;
      if (!done) throw opensslFailure('compute an ICV');
      return bytes;
    },
    wipe() {
      bytes.fill(0);
      release();
    },
  };
  const release = releaseOnce(mac, () => freeMacContext(context));
  return mac;
}

function keyedContext(hash: HmacHash, key: Uint8Array): number {
  const { hmac, newMacContext, freeMacContext, macInit } = evp();
  // Key and name of the hash lie outside V8's heap, which leaves no copies behind when it moves things.
  const memory = alignedMemory(key.length + hash.length);
  memory.bytes.set(key);
  memory.bytes.set(Buffer.from(hash, 'latin1'), key.length);
  const digest = parameter('digest', 'utf8String', memory.address + key.length, hash.length);
  const context = newMacContext(hmac);
  const keyed = context !== 0 && macInit(context, memory.address, key.length, digest.address) === 1;
  memory.bytes.fill(0);
  digest.bytes.fill(0);
  if (!keyed) {
    freeMacContext(context);
    throw opensslFailure(`key HMAC with ${hash}`);
  }
  return context;
}

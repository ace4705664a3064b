/** IKE_SA_INIT messages parsed and written a second: what a responder pays before it knows who it talks to. */
import { performance } from 'node:perf_hooks';
import { utf8 } from '../src/base/text.ts';
import { parseIkeProposalString } from '../src/crypto/proposal-text.ts';
import { ikeWireProposals } from '../src/ike/proposals/proposals.ts';
import { ExchangeType, NotifyType } from '../src/ike/wire/iana.ts';
import { decodeMessage, encodePlain, type IkeHeader } from '../src/ike/wire/message.ts';
import type { Payload } from '../src/ike/wire/payload.ts';
import { notifyPayload } from '../src/ike/wire/payloads/notify.ts';
import { checkRules } from '../src/ike/wire/rules.ts';
import type { BenchRow } from './row.ts';

const ROUND_MS = 200;
const ROUNDS = 5;

const header: IkeHeader = {
  initiatorSpi: 0x1f2e3d4c5b6a7988n,
  responderSpi: 0n,
  exchange: ExchangeType.IKE_SA_INIT,
  initiator: true,
  response: false,
  messageId: 0,
};

/** As a peer with a default configuration sends it: three proposals with 24 transforms, X25519, both NAT hashes. */
const payloads: readonly Payload[] = [
  {
    type: 'sa',
    proposals: ikeWireProposals(
      [
        'aes256gcm16-aes128gcm16-chacha20poly1305-prfsha384-prfsha256-x25519-ecp384-ecp256-modp3072',
        'aes256-aes128-sha384-sha256-prfsha384-prfsha256-x25519-ecp256-modp3072',
        'aes128-sha256-modp3072',
      ].map(parseIkeProposalString),
    ),
  },
  { type: 'ke', group: 31, data: new Uint8Array(32).fill(7) },
  { type: 'nonce', data: new Uint8Array(32).fill(9) },
  notifyPayload(NotifyType.NAT_DETECTION_SOURCE_IP, new Uint8Array(20).fill(1)),
  notifyPayload(NotifyType.NAT_DETECTION_DESTINATION_IP, new Uint8Array(20).fill(2)),
  notifyPayload(NotifyType.IKEV2_FRAGMENTATION_SUPPORTED),
  notifyPayload(NotifyType.SIGNATURE_HASH_ALGORITHMS, Uint8Array.of(0, 2, 0, 3, 0, 4, 0, 5)),
  notifyPayload(NotifyType.REDIRECT_SUPPORTED),
  { type: 'vendor', data: utf8('sectunnel') },
];

export async function codecBench(): Promise<BenchRow[]> {
  const message = encodePlain(header, payloads);
  const parse = (): number => decodeMessage(message).payloads.length;
  const parseAndCheck = (): number => {
    const parsed = decodeMessage(message);
    const violation = checkRules({ ...parsed.header, encrypted: false }, parsed.payloads);
    return violation === undefined ? parsed.payloads.length : 0;
  };
  const write = (): number => encodePlain(header, payloads).length - message.length + payloads.length;
  return [
    { name: 'codec/parse/ike-sa-init', value: perSecond(parse), unit: '1/s' },
    { name: 'codec/parse-and-check/ike-sa-init', value: perSecond(parseAndCheck), unit: '1/s' },
    { name: 'codec/write/ike-sa-init', value: perSecond(write), unit: '1/s' },
    { name: 'codec/size/ike-sa-init', value: message.length, unit: 'bytes' },
  ];
}

/** The median of some rounds. Throws when a run does not yield all payloads: nothing would have been measured. */
function perSecond(run: () => number): number {
  const rounds = Array.from({ length: ROUNDS }, () => {
    const start = performance.now();
    let done = 0;
    let elapsed = 0;
    while (elapsed < ROUND_MS) {
      for (let i = 0; i < 1000; i++) {
        if (run() !== payloads.length) throw new Error('bench: not all payloads came through');
      }
      done += 1000;
      elapsed = performance.now() - start;
    }
    return (done / elapsed) * 1000;
  });
  return rounds.sort((a, b) => a - b)[ROUNDS >> 1]!;
}

/** The expressions that a rule of nftables consists of, and how each is written into its message (struct nft_expr). */
import {
  NFT_FIB_RESULT_ADDRTYPE,
  NFT_LOOKUP_F_INV,
  NFT_NAT_SNAT,
  NFT_OBJECT_COUNTER,
  NFT_REG,
  NFT_REJECT_ICMPX_ADMIN_PROHIBITED,
  NFT_REJECT_ICMPX_UNREACH,
  NFTA_BITWISE,
  NFTA_CMP,
  NFTA_DATA,
  NFTA_EXPR,
  NFTA_EXTHDR,
  NFTA_FIB,
  NFTA_IMMEDIATE,
  NFTA_LOOKUP,
  NFTA_META,
  NFTA_NAT,
  NFTA_OBJREF,
  NFTA_PAYLOAD,
  NFTA_REJECT,
  NFTA_VERDICT,
  VERDICT,
} from '../netlink/nftables-layout.ts';
import type { Words } from './words.ts';
import type { MessageWriter } from './writer.ts';

/** Where a value is found: offsets and lengths in bytes. */
export type Load =
  | { readonly kind: 'meta'; readonly key: number }
  | { readonly kind: 'payload'; readonly base: number; readonly offset: number; readonly length: number }
  | {
      readonly kind: 'exthdr';
      readonly header: number;
      readonly offset: number;
      readonly length: number;
      readonly flags: number;
    }
  | { readonly kind: 'fib'; readonly flags: number };

/** The first register, but for the loads of a key that has several parts. */
export type Expression =
  | { readonly kind: 'load'; readonly load: Load; readonly register: number }
  | { readonly kind: 'bitwise'; readonly mask: Uint8Array; readonly xor: Uint8Array }
  | { readonly kind: 'cmp'; readonly op: number; readonly value: Uint8Array }
  | { readonly kind: 'lookup'; readonly set: string; readonly setId?: number; readonly inverted: boolean }
  | { readonly kind: 'verdicts'; readonly map: string }
  | { readonly kind: 'verdict'; readonly verdict: Verdict }
  | { readonly kind: 'set-meta'; readonly key: number }
  | { readonly kind: 'counter'; readonly name: string }
  | { readonly kind: 'reject' }
  | { readonly kind: 'snat'; readonly family: number };

export interface Verdict {
  readonly code: number;
  readonly chain?: string;
}

/** @returns undefined when the next words are no verdict */
export function parseVerdict(words: Words): Verdict | undefined {
  const name = (Object.keys(VERDICT) as (keyof typeof VERDICT)[]).find((word) => words.takes(word));
  if (name === undefined) return undefined;
  const code = VERDICT[name];
  return name === 'jump' || name === 'goto' ? { code, chain: words.next() } : { code };
}

/** NFTA_DATA_VERDICT. */
export function writeVerdict(to: MessageWriter, { code, chain }: Verdict): void {
  to.nested(NFTA_DATA.VERDICT, () => {
    to.u32(NFTA_VERDICT.CODE, code);
    if (chain !== undefined) to.text(NFTA_VERDICT.CHAIN, chain);
  });
}

export function writeExpression(to: MessageWriter, expression: Expression): void {
  to.element(() => {
    to.text(NFTA_EXPR.NAME, nameOf(expression));
    to.nested(NFTA_EXPR.DATA, () => writeData(to, expression));
  });
}

/** The kernel's. */
function nameOf(expression: Expression): string {
  switch (expression.kind) {
    case 'load':
      return expression.load.kind;
    case 'verdicts':
      return 'lookup';
    case 'verdict':
      return 'immediate';
    case 'set-meta':
      return 'meta';
    case 'counter':
      return 'objref';
    case 'snat':
      return 'nat';
    default:
      return expression.kind;
  }
}

function writeData(to: MessageWriter, expression: Expression): void {
  const { FIRST, VERDICT: VERDICT_REGISTER } = NFT_REG;
  switch (expression.kind) {
    case 'load':
      writeLoad(to, expression.load, expression.register);
      break;
    case 'bitwise':
      to.u32(NFTA_BITWISE.SREG, FIRST);
      to.u32(NFTA_BITWISE.DREG, FIRST);
      to.u32(NFTA_BITWISE.LEN, expression.mask.length);
      to.data(NFTA_BITWISE.MASK, expression.mask);
      to.data(NFTA_BITWISE.XOR, expression.xor);
      break;
    case 'cmp':
      to.u32(NFTA_CMP.SREG, FIRST);
      to.u32(NFTA_CMP.OP, expression.op);
      to.data(NFTA_CMP.DATA, expression.value);
      break;
    case 'lookup':
      to.text(NFTA_LOOKUP.SET, expression.set);
      to.u32(NFTA_LOOKUP.SREG, FIRST);
      if (expression.setId !== undefined) to.u32(NFTA_LOOKUP.SET_ID, expression.setId);
      if (expression.inverted) to.u32(NFTA_LOOKUP.FLAGS, NFT_LOOKUP_F_INV);
      break;
    case 'verdicts':
      to.text(NFTA_LOOKUP.SET, expression.map);
      to.u32(NFTA_LOOKUP.SREG, FIRST);
      to.u32(NFTA_LOOKUP.DREG, VERDICT_REGISTER);
      break;
    case 'verdict':
      to.u32(NFTA_IMMEDIATE.DREG, VERDICT_REGISTER);
      to.nested(NFTA_IMMEDIATE.DATA, () => writeVerdict(to, expression.verdict));
      break;
    case 'set-meta':
      to.u32(NFTA_META.KEY, expression.key);
      to.u32(NFTA_META.SREG, FIRST);
      break;
    case 'counter':
      to.u32(NFTA_OBJREF.TYPE, NFT_OBJECT_COUNTER);
      to.text(NFTA_OBJREF.NAME, expression.name);
      break;
    case 'reject':
      to.u32(NFTA_REJECT.TYPE, NFT_REJECT_ICMPX_UNREACH);
      to.u8(NFTA_REJECT.ICMP_CODE, NFT_REJECT_ICMPX_ADMIN_PROHIBITED);
      break;
    case 'snat':
      to.u32(NFTA_NAT.TYPE, NFT_NAT_SNAT);
      to.u32(NFTA_NAT.FAMILY, expression.family);
      to.u32(NFTA_NAT.REG_ADDR_MIN, FIRST);
      break;
  }
}

function writeLoad(to: MessageWriter, load: Load, register: number): void {
  switch (load.kind) {
    case 'meta':
      to.u32(NFTA_META.DREG, register);
      to.u32(NFTA_META.KEY, load.key);
      break;
    case 'payload':
      to.u32(NFTA_PAYLOAD.DREG, register);
      to.u32(NFTA_PAYLOAD.BASE, load.base);
      to.u32(NFTA_PAYLOAD.OFFSET, load.offset);
      to.u32(NFTA_PAYLOAD.LEN, load.length);
      break;
    case 'exthdr':
      to.u32(NFTA_EXTHDR.DREG, register);
      to.u8(NFTA_EXTHDR.TYPE, load.header);
      to.u32(NFTA_EXTHDR.OFFSET, load.offset);
      to.u32(NFTA_EXTHDR.LEN, load.length);
      to.u32(NFTA_EXTHDR.FLAGS, load.flags);
      break;
    case 'fib':
      to.u32(NFTA_FIB.DREG, register);
      to.u32(NFTA_FIB.RESULT, NFT_FIB_RESULT_ADDRTYPE);
      to.u32(NFTA_FIB.FLAGS, load.flags);
      break;
  }
}

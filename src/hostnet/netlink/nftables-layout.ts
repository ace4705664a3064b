/** The numbers of nf_tables' netlink messages (linux/netfilter/nf_tables.h), as far as they are written or read here. */

/** netlink(7): NETLINK_NETFILTER. */
export const NETLINK_NETFILTER = 12;
/** Multicast group of all changes of nftables. */
export const NFNLGRP_NFTABLES = 7;

export const NFNL_SUBSYS_NFTABLES = 10;
/** Around the messages of a batch, which the kernel carries out as a whole or not at all. */
export const NFNL_MSG = { BATCH_BEGIN: 16, BATCH_END: 17 } as const;
export const NFPROTO_INET = 1;
/** Of what iptables and libvirt write, whose tables are of one family each. */
export const NFPROTO = { 4: 2, 6: 10 } as const;
/** struct nfgenmsg: u8 family, u8 version, be16 resource. */
export const NFGEN_SIZE = 4;

export const NFT_MSG = {
  NEWTABLE: 0,
  GETTABLE: 1,
  DELTABLE: 2,
  NEWCHAIN: 3,
  GETCHAIN: 4,
  DELCHAIN: 5,
  NEWRULE: 6,
  GETRULE: 7,
  DELRULE: 8,
  NEWSET: 9,
  GETSET: 10,
  DELSET: 11,
  NEWSETELEM: 12,
  GETSETELEM: 13,
  DELSETELEM: 14,
  NEWGEN: 15,
  GETGEN: 16,
  NEWOBJ: 18,
  GETOBJ: 19,
  DELOBJ: 20,
} as const;

/** The type of a message to or from nftables. */
export function nftType(message: number): number {
  return (NFNL_SUBSYS_NFTABLES << 8) | message;
}

/** Each has the name of its table with number 1, but generations. */
export const NFTA_TABLE = { NAME: 1, FLAGS: 2, USERDATA: 6 } as const;
export const NFTA_CHAIN = { NAME: 3, HOOK: 4, POLICY: 5, TYPE: 7, FLAGS: 10 } as const;
export const NFTA_HOOK = { NUMBER: 1, PRIORITY: 2 } as const;
export const NFTA_RULE = { CHAIN: 2, EXPRESSIONS: 4, USERDATA: 7 } as const;
export const NFTA_SET = {
  NAME: 2,
  FLAGS: 3,
  KEY_TYPE: 4,
  KEY_LEN: 5,
  DATA_TYPE: 6,
  DATA_LEN: 7,
  DESC: 9,
  ID: 10,
  TIMEOUT: 11,
  USERDATA: 13,
} as const;
export const NFTA_SET_DESC = { SIZE: 1, CONCAT: 2 } as const;
export const NFTA_SET_FIELD_LEN = 1;
export const NFTA_SET_ELEM_LIST = { SET: 2, ELEMENTS: 3, SET_ID: 4 } as const;
export const NFTA_SET_ELEM = { KEY: 1, DATA: 2, FLAGS: 3, USERDATA: 6, OBJREF: 9, KEY_END: 10 } as const;
export const NFTA_OBJECT = { NAME: 2, TYPE: 3, DATA: 4 } as const;
export const NFTA_COUNTER = { BYTES: 1, PACKETS: 2 } as const;
export const NFTA_GEN = { ID: 1, PROC_PID: 2, PROC_NAME: 3 } as const;
/** Of each in a list. */
export const NFTA_LIST_ELEMENT = 1;

export const NFTA_EXPR = { NAME: 1, DATA: 2 } as const;
export const NFTA_META = { DREG: 1, KEY: 2, SREG: 3 } as const;
export const NFTA_PAYLOAD = { DREG: 1, BASE: 2, OFFSET: 3, LEN: 4 } as const;
export const NFTA_EXTHDR = { DREG: 1, TYPE: 2, OFFSET: 3, LEN: 4, FLAGS: 5 } as const;
export const NFTA_FIB = { DREG: 1, RESULT: 2, FLAGS: 3 } as const;
export const NFTA_BITWISE = { SREG: 1, DREG: 2, LEN: 3, MASK: 4, XOR: 5 } as const;
export const NFTA_CMP = { SREG: 1, OP: 2, DATA: 3 } as const;
export const NFTA_LOOKUP = { SET: 1, SREG: 2, DREG: 3, SET_ID: 4, FLAGS: 5 } as const;
export const NFTA_IMMEDIATE = { DREG: 1, DATA: 2 } as const;
export const NFTA_OBJREF = { TYPE: 1, NAME: 2 } as const;
export const NFTA_REJECT = { TYPE: 1, ICMP_CODE: 2 } as const;
export const NFTA_NAT = { TYPE: 1, FAMILY: 2, REG_ADDR_MIN: 3 } as const;
export const NFTA_DATA = { VALUE: 1, VERDICT: 2 } as const;
export const NFTA_VERDICT = { CODE: 1, CHAIN: 2 } as const;

/** NFT_META_…: what of a packet is loaded that is not in it. */
export const NFT_META = {
  MARK: 3,
  IIF: 4,
  OIF: 5,
  IIFNAME: 6,
  OIFNAME: 7,
  NFPROTO: 15,
  L4PROTO: 16,
  OIFGROUP: 22,
  IIFKIND: 26,
  OIFKIND: 27,
  SDIFNAME: 34,
} as const;
export const NFT_PAYLOAD = { NETWORK_HEADER: 1, TRANSPORT_HEADER: 2 } as const;
export const NFT_EXTHDR_F_PRESENT = 1;
export const NFT_FIB_RESULT_ADDRTYPE = 3;
export const NFTA_FIB_F = { DADDR: 2, IIF: 8 } as const;
export const NFT_CMP = { EQ: 0, NEQ: 1, LTE: 3, GTE: 5 } as const;
export const NFT_LOOKUP_F_INV = 1;
export const NFT_OBJECT_COUNTER = 1;
export const NFT_REJECT_ICMPX_UNREACH = 2;
export const NFT_REJECT_ICMPX_ADMIN_PROHIBITED = 3;
export const NFT_NAT_SNAT = 0;
/** Verdicts of rules: of netfilter, and of nftables (negative). */
export const VERDICT = { drop: 0, accept: 1, jump: -3, goto: -4, return: -5 } as const;
/** Registers: the verdict's, the first of 16 bytes, the first of 4 bytes, which is the same memory as that of 16. */
export const NFT_REG = { VERDICT: 0, FIRST: 1, FIRST_OF_4: 8 } as const;

/** ANONYMOUS: belongs to a rule and cannot be changed without it. */
export const NFT_SET = { ANONYMOUS: 1, CONSTANT: 2, INTERVAL: 4, MAP: 8, CONCAT: 0x80 } as const;
export const NFT_SET_ELEM_INTERVAL_END = 1;
export const NFT_DATA_VERDICT = 0xffff_ff00;

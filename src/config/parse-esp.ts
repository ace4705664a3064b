/** The `<esp>` of a document: algorithms and lifetimes, the replay window, outer headers, and sizes of packets. */
import { parseEspProposal } from '../crypto/proposal-text.ts';
import { DEFAULT_DSCP, DEFAULT_ESP_PROPOSALS, DEFAULT_REPLAY_WINDOW, DEFAULT_TFC, ESP_LIFETIME } from './defaults.ts';
import { TFC_PADDINGS } from './grammar.ts';
import type { Issues } from './issues.ts';
import type { EspSettings, TfcSettings } from './model.ts';
import { readLifetime, readProposals } from './parse-suite.ts';
import { attributeOf, readAmount, readChoice, readInteger } from './values.ts';
import { childElements, type XmlNode } from './xml.ts';

/** Bounds of a replay window (RFC 4303 §3.4.3 wants 64 at least). */
const MIN_REPLAY_WINDOW = 64;
const MAX_REPLAY_WINDOW = 65_536;
/** Six bits (RFC 2474 §3). */
const MAX_DSCP = 63;
/** Bytes that packets are padded to: no IP packet is larger, and less would pad nothing. */
const MIN_TFC_SIZE = 16;
const MAX_TFC_SIZE = 65_535;
/** Dummy packets a second: more would be a load. */
const MAX_DUMMIES = 100;

export function readEsp(issues: Issues, root: XmlNode, node: XmlNode | undefined): EspSettings {
  const proposals = node === undefined ? [] : readProposals(issues, node, parseEspProposal);
  const lifetime = node && childElements(node, 'lifetime')[0];
  const replay = node && childElements(node, 'replay')[0];
  const window = replay && readInteger(issues, replay, 'window', { min: MIN_REPLAY_WINDOW, max: MAX_REPLAY_WINDOW });
  return {
    proposals: proposals.length > 0 ? proposals : DEFAULT_ESP_PROPOSALS,
    lifetime: {
      ...readLifetime(issues, node, ESP_LIFETIME),
      bytes: lifetime && readAmount(issues, lifetime, 'bytes'),
      packets: lifetime && readAmount(issues, lifetime, 'packets'),
    },
    replayWindow: window ?? DEFAULT_REPLAY_WINDOW,
    dscp: readDscp(issues, node && childElements(node, 'outer')[0]),
    tfc: readTfc(issues, node && childElements(node, 'tfc')[0]),
    line: (node ?? root).line,
  };
}

function readDscp(issues: Issues, node: XmlNode | undefined): number | undefined {
  const found = node && attributeOf(node, 'dscp');
  if (node === undefined || found === undefined) return DEFAULT_DSCP;
  if (found === 'copy') return undefined;
  const dscp = /^[0-9]{1,2}$/.test(found) ? Number(found) : Number.NaN;
  if (dscp <= MAX_DSCP) return dscp;
  issues.badValue(node, 'dscp', found, `'copy' or a whole number from 0 to ${MAX_DSCP}`);
  return undefined;
}

function readTfc(issues: Issues, node: XmlNode | undefined): TfcSettings {
  if (node === undefined) return DEFAULT_TFC;
  const padding = readChoice(node, 'padding', TFC_PADDINGS) ?? DEFAULT_TFC.padding;
  const size = readInteger(issues, node, 'size', { min: MIN_TFC_SIZE, max: MAX_TFC_SIZE });
  const sized = padding === 'multiple' || padding === 'fixed';
  const found = attributeOf(node, 'size');
  if (sized && found === undefined) {
    const allowed = `size='…', a number of bytes from ${MIN_TFC_SIZE} to ${MAX_TFC_SIZE}`;
    issues.add(node, `padding='${padding}' does not say to what; add ${allowed}`, { attribute: 'size', allowed });
  } else if (!sized && found !== undefined) {
    const why = `padding='${padding}' needs no size; leave it out, or write padding='multiple' or 'fixed'`;
    issues.badValue(node, 'size', found, 'no size', why);
  }
  return {
    padding,
    size: sized ? size : undefined,
    dummies: readInteger(issues, node, 'dummies', { min: 0, max: MAX_DUMMIES }) ?? DEFAULT_TFC.dummies,
  };
}

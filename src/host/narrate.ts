/** What happened, in words: one place for the log's lines and for `sectunnel event`. */

import { formatSocketAddress } from '../base/address.ts';
import { assertNever } from '../base/assert.ts';
import { formatIdentity } from '../base/identity.ts';
import { formatSpi } from '../base/spi.ts';
import type { ChildSummary, EngineEvent } from '../engine/events.ts';
import type { DownReason } from '../ike/events.ts';
import { formatSelector } from '../policy/selector.ts';

/** What happens to a tunnel, by name: of the lines of `sectunnel event`. */
export type TunnelEventName =
  | 'defined'
  | 'undefined'
  | 'started'
  | 'stopped'
  | 'updated'
  | 'ike-up'
  | 'ike-down'
  | 'child-up'
  | 'child-down'
  | 'secret-changed'
  /** What it needs of the kernel or of the host's addresses is not there; and is there again. */
  | 'degraded'
  | 'restored'
  /** A CHILD SA has sent packets and never received one; and has received one. */
  | 'nothing-received'
  | 'received'
  /** Of the tunnels of its redundancy group it is the one that packets go by now. */
  | 'carries'
  | 'failed';

export interface Narration {
  readonly level: 'debug' | 'info' | 'warn';
  readonly text: string;
  /** Facts for a log that machines read. */
  readonly fields: object;
  /** Under which name listeners are told; `undefined` when it is for the log alone. */
  readonly event: TunnelEventName | undefined;
}

type Told = Exclude<EngineEvent, { readonly requestId: number }>;

/** Reasons for an IKE SA to go down that an operator should know. */
const LOSSES: readonly DownReason[] = ['peer-dead', 'path-lost'];

/** @param inDocument lines of the tunnel's document that have a say in a failure */
export function narrate(happened: Told, inDocument: readonly string[] = []): Narration {
  switch (happened.type) {
    case 'ike-up': {
      const { ikeSa, replaces } = happened;
      const who = `${formatIdentity(ikeSa.localId)} === ${formatIdentity(ikeSa.remoteId)}`;
      const where = formatSocketAddress(ikeSa.path.remote);
      const text = `IKE SA #${ikeSa.id} ${replaces === undefined ? 'established' : 'rekeyed'} with ${where}: ${who}, ${ikeSa.suite}`;
      return { level: 'info', text, fields: { ikeSa: ikeSa.id }, event: 'ike-up' };
    }
    case 'ike-down': {
      const detail = happened.detail === '' ? '' : `: ${happened.detail}`;
      const text = `IKE SA #${happened.ikeSaId} closed (${happened.reason})${detail}`;
      const level = LOSSES.includes(happened.reason) ? 'warn' : 'info';
      return { level, text, fields: { ikeSa: happened.ikeSaId, reason: happened.reason }, event: 'ike-down' };
    }
    case 'child-up': {
      const { child } = happened;
      const text = `CHILD SA #${child.id} ${child.name} established: ${describeChild(child)}`;
      return { level: 'info', text, fields: { child: child.name, childSa: child.id }, event: 'child-up' };
    }
    case 'child-down': {
      const text = `CHILD SA #${happened.childId} ${happened.child} closed (${happened.reason})`;
      const fields = { child: happened.child, childSa: happened.childId, reason: happened.reason };
      return { level: 'info', text, fields, event: 'child-down' };
    }
    case 'alive': {
      const text = `the peer of IKE SA #${happened.ikeSaId} answered after ${happened.after.toFixed(1)} ms`;
      return { level: 'info', text, fields: { ikeSa: happened.ikeSaId }, event: undefined };
    }
    case 'declined': {
      const text = `the peer requests ${happened.capability}`;
      return { level: 'warn', text, fields: {}, event: undefined };
    }
    case 'path-changed': {
      const text = `the peer moved to ${formatSocketAddress(happened.path.remote)}`;
      return { level: 'info', text, fields: { ikeSa: happened.ikeSaId }, event: undefined };
    }
    case 'failed': {
      const remote = formatSocketAddress(happened.remote);
      const what = happened.child === undefined ? '' : ` of ${happened.child}`;
      const failed = `negotiation${what} with ${remote} failed: ${happened.reason}: ${happened.detail}`;
      const text = [failed, ...inDocument.map((place) => `  ${place}`)].join('\n');
      return {
        level: 'warn',
        text,
        fields: { child: happened.child, reason: happened.reason, remote },
        event: 'failed',
      };
    }
    case 'note':
      return { level: happened.level, text: happened.text, fields: {}, event: undefined };
    default:
      return assertNever(happened, 'narrate');
  }
}

function describeChild(child: ChildSummary): string {
  const { local, remote } = child.selectors;
  const selectors = `${local.map(formatSelector).join(', ')} === ${remote.map(formatSelector).join(', ')}`;
  return `${selectors}, ${child.suite}${child.esn ? ', ESN' : ''}, SPI in ${formatSpi(child.spiIn)} out ${formatSpi(child.spiOut)}`;
}

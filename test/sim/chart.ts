/** A run as a chart that one can read: an arrow for each datagram, with what became of it, and what happens at each host. */
import { toHex } from '../../src/base/bytes.ts';
import { classify, stripMarker } from '../../src/engine/demux.ts';
import type { EngineEvent } from '../../src/engine/events.ts';
import { exchangeName } from '../../src/ike/wire/iana.ts';
import { decodeHeader } from '../../src/ike/wire/message.ts';
import type { Name } from './scenario.ts';

/** Characters of an SPI, enough to tell them apart. */
const SPI = 6;

export class Chart {
  readonly lines: string[] = [];

  datagram(now: number, way: { readonly from: Name; readonly to: Name; readonly fate: string }, text: string): void {
    this.#add(now, `${way.from.padEnd(4)} → ${way.to.padEnd(4)} ${text}${way.fate === '' ? '' : `   ✗ ${way.fate}`}`);
  }

  action(now: number, text: string): void {
    this.#add(now, `* ${text}`);
  }

  event(now: number, host: Name, event: EngineEvent): void {
    const text = eventText(event);
    if (text !== undefined) this.#add(now, `  ${host}: ${text}`);
  }

  #add(now: number, text: string): void {
    this.lines.push(`${(now / 1_000).toFixed(3).padStart(9)}  ${text}`);
  }
}

/** What a datagram is, by what is not encrypted: `CREATE_CHILD_SA request 4, 180 bytes`. @param port the sender's own */
export function datagramText(port: number, data: Uint8Array): string {
  const kind = classify(port, data);
  if (kind === 'esp') {
    const view = new DataView(data.buffer, data.byteOffset, data.length);
    return `ESP ${toHex(data.subarray(0, 4)).slice(0, SPI)} #${view.getUint32(4)}`;
  }
  if (kind !== 'ike') return kind;
  const { exchange, response, messageId, initiatorSpi, initiator } = decodeHeader(stripMarker(port, data));
  const name = exchangeName(exchange);
  const sender = initiator ? 'i' : 'r';
  const spi = initiatorSpi.toString(16).padStart(16, '0').slice(0, SPI);
  return `${name} ${response ? 'response' : 'request'} ${messageId} (IKE ${spi}, ${sender}), ${data.length} bytes`;
}

function eventText(event: EngineEvent): string | undefined {
  switch (event.type) {
    case 'ike-up':
      return `IKE SA #${event.ikeSa.id} of ${event.tunnel} ${event.replaces === undefined ? 'up' : 'rekeyed'}`;
    case 'ike-down':
      return `IKE SA #${event.ikeSaId} of ${event.tunnel} down (${event.reason}): ${event.detail}`;
    case 'child-up':
      return `CHILD SA #${event.child.id} ${event.child.name} up, SPIs in ${spiText(event.child.spiIn)} out ${spiText(event.child.spiOut)}`;
    case 'child-down':
      return `CHILD SA #${event.childId} ${event.child} down (${event.reason})`;
    case 'failed':
      return `${event.tunnel} failed: ${event.reason}: ${event.detail}`;
    case 'path-changed':
      return `the path of ${event.tunnel} changed`;
    case 'note':
      return event.text;
    default:
      return undefined;
  }
}

function spiText(spi: number): string {
  return (spi >>> 0).toString(16).padStart(8, '0').slice(0, SPI);
}

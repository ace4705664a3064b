/** The JSON that nft(8) writes with `-j`. */
import { messageOf } from '../../base/text.ts';

/** Its objects of a kind. @throws Error when it is not the JSON that is expected */
export function nftObjects(json: string, kind: string): Readonly<Record<string, unknown>>[] {
  let parsed: unknown;
  try {
    parsed = JSON.parse(json);
  } catch (error) {
    throw new Error(`the output of nft is not JSON: ${messageOf(error)}`);
  }
  const list = isRecord(parsed) && Array.isArray(parsed.nftables) ? parsed.nftables : [];
  return list.flatMap((item: unknown) => (isRecord(item) && isRecord(item[kind]) ? [item[kind]] : []));
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null;
}

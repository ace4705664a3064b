/** Words and phrases of nft(8), as all of the fence uses them. */
import type { IpFamily } from '../../base/address.ts';

export const FENCE_TABLE = 'sectunnel';
/** As it stands in commands. */
export const TABLE: string = `inet ${FENCE_TABLE}`;

/** Makes the table; where it is there and dormant, wakes it. */
export const TABLE_LINE: string = `add table ${TABLE} { comment "kept by sectunnel"; }`;

export function add(chain: string, rule: string): string {
  return `add rule ${TABLE} ${chain} ${rule}`;
}

/** @param id that of the part */
export function counterName(id: string, name: string): string {
  return `${id}_${name}`;
}

export function word(family: IpFamily): string {
  return family === 4 ? 'ip' : 'ip6';
}

/** @throws Error for names of links that nft would read as something else */
export function quoted(link: string): string {
  if (!/^[^"\\*\s]{1,15}$/.test(link)) {
    throw new Error(`the link name '${link}' cannot stand in a fence: leave out quotes, backslashes, asterisks`);
  }
  return `"${link}"`;
}

/** The MTU of a tunnel's device. */
import type { IpFamily } from '../base/address.ts';
import { espRoom, MIN_MTU, UNKNOWN_PATH_MTU } from '../base/mtu.ts';
import type { EspProposal } from '../crypto/proposal.ts';
import { maxPayload } from '../esp/packet.ts';

/** Of a device, without counting what ESP adds: larger frames than jumbo ones are those of loopback interfaces. */
const MAX_PATH_MTU = 9000;
/** Segments of a full packet then start at whole words, whatever the padding would have allowed. */
const STEP = 4;

export interface DeviceNeeds {
  /** `undefined` when it is not known. */
  readonly pathMtu: number | undefined;
  readonly outer: IpFamily;
  /** Whether ESP may go in UDP. */
  readonly encapsulated: boolean;
  /** What may be agreed on: the largest overhead counts. */
  readonly proposals: readonly EspProposal[];
  /** Whether the device carries IPv6. */
  readonly ipv6: boolean;
}

/** The largest packets that fit the path, however they are sealed. */
export function deviceMtu({ pathMtu = UNKNOWN_PATH_MTU, outer, encapsulated, proposals, ipv6 }: DeviceNeeds): number {
  const room = espRoom(Math.min(pathMtu, MAX_PATH_MTU), { outer, encapsulated });
  const most = proposals.flatMap(({ encryption, integrity }) =>
    encryption.flatMap((cipher) =>
      (cipher.aead ? [cipher] : integrity).map(({ icvLength }) => maxPayload(room, { ...cipher, icvLength })),
    ),
  );
  const fits = Math.min(room, ...most);
  return Math.max(fits - (fits % STEP), MIN_MTU[ipv6 ? 6 : 4]);
}

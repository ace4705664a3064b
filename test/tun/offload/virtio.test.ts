import { describe, expect, it } from 'vitest';
import { fromHex, toHex } from '../../../src/base/bytes.ts';
import {
  GsoType,
  newVirtioHeader,
  readVirtioHeader,
  VirtioFlag,
  writeVirtioHeader,
} from '../../../src/tun/offload/virtio.ts';

describe('the virtio header', () => {
  // Before a TSO packet over IPv4 with TCP timestamps, in segments of 1,348 bytes.
  const header = {
    flags: VirtioFlag.needsCsum,
    gsoType: GsoType.tcp4,
    hdrLen: 52,
    gsoSize: 1348,
    csumStart: 20,
    csumOffset: 16,
  };
  const bytes = '0101' + '3400' + '4405' + '1400' + '1000';

  it('is little-endian', () => {
    const buffer = new Uint8Array(14).fill(0xaa);
    writeVirtioHeader(buffer, 2, header);
    expect(toHex(buffer)).toBe(`aaaa${bytes}aaaa`);
    const read = newVirtioHeader();
    readVirtioHeader(buffer, 2, read);
    expect(read).toEqual(header);
  });

  it('reads every bit', () => {
    const read = newVirtioHeader();
    readVirtioHeader(fromHex('ff85fffefdfcfbfaf9f8'), 0, read);
    expect(read).toEqual({
      flags: 0xff,
      gsoType: GsoType.udpL4 | GsoType.ecn,
      hdrLen: 0xfeff,
      gsoSize: 0xfcfd,
      csumStart: 0xfafb,
      csumOffset: 0xf8f9,
    });
  });
});

/**
 * What only Linux has: TUN devices, UDP sockets that send and receive many datagrams a call, policy routing and fence of a
 * tunnel, and the cryptography of libraries that the system has. The package koffi is loaded when it is first needed.
 *
 * @module sectunnel/linux
 */
export { openIpsecMbProvider } from '../crypto/ipsec-mb/provider.ts';
export { openOpensslProvider } from '../crypto/openssl/provider.ts';
export { linuxPlatform } from '../host/linux.ts';
export type { Platform } from '../host/platform.ts';
export type { FenceCounters } from '../hostnet/fence/fence.ts';
export type { InstalledTunnel } from '../plan/device.ts';
export { SystemError } from '../sys/errno.ts';
export { type LinuxTun, type LinuxTunOptions, openLinuxTun } from '../tun/linux.ts';
export { PacketMemory, type PacketMemoryOptions } from '../tun/offload/memory.ts';
export { type OffloadKinds, SharedOffloads } from '../tun/offload/shared.ts';
export { hasLinuxUdp, type LinuxUdpOptions, linuxUdp } from '../tun/udp/linux.ts';

/**
 * Devices and networks in memory, to test a program with: no root, no sockets, and loss as it is asked for.
 *
 * @module sectunnel/testing
 */
export { MemoryDevice, type MemoryDeviceOptions } from '../tun/memory.ts';
export { MemoryNetwork } from '../tun/udp/memory.ts';

/**
 * Devices and networks in memory, to test a program with: no root, no sockets, and loss as it is asked for.
 *
 * @module sectunnel/testing
 */
export { MemoryDevice, type MemoryDeviceOptions } from '../tun/memory.ts';
export {
  type LossOptions,
  lossyRoute,
  type MemoryArrival,
  type MemoryDatagram,
  type MemoryHost,
  MemoryNetwork,
  type MemoryNetworkOptions,
} from '../tun/udp/memory.ts';

/** Has libvirt keep a network: its own daemon for networks, or libvirtd of one piece. */
import { basename, dirname, join } from 'node:path';
import { LibvirtUnreachableError, RpcClient } from './rpc-client.ts';
import { Procedure } from './rpc-numbers.ts';
import { writeString } from './xdr.ts';

const URI = 'network:///system';
/** The socket of the daemon for networks, in the run folder of all of them. */
const NETWORK_SOCKET = 'virtnetworkd-sock';

/**
 * @param sockets of libvirt's daemons, in the order in which they are tried; in the place of one for other objects than
 * networks stands the one for networks
 * @throws LibvirtUnreachableError when no libvirt is there, LibvirtError with its refusal
 */
export async function defineNetwork(sockets: readonly string[], xml: string): Promise<void> {
  const client = await connected(sockets);
  try {
    await client.call(Procedure.NetworkDefineXml, (body) => writeString(body, xml));
  } finally {
    client.close();
  }
}

async function connected(sockets: readonly string[]): Promise<RpcClient> {
  let absent = new LibvirtUnreachableError('absent', 'libvirt is not to be asked (--libvirt-socket off)');
  for (const socket of sockets) {
    const path = basename(socket).startsWith('virt') ? join(dirname(socket), NETWORK_SOCKET) : socket;
    try {
      return await RpcClient.connect({ path, uri: URI });
    } catch (error) {
      if (!(error instanceof LibvirtUnreachableError) || error.reason !== 'absent') throw error;
      absent = error;
    }
  }
  throw absent;
}

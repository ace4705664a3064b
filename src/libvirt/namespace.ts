/**
 * The XML namespace of what a libvirt network says of its tunnel. The hook searches a network's document for this text before
 * it asks the daemon: networks without it do not concern us.
 */
export const TUNNEL_NAMESPACE = 'urn:sectunnel:network:1';

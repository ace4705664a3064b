/** The kinds of network configuration that a tunnel can be exported to. */

export const EXPORT_FORMATS = ['networkd', 'networkmanager', 'ifupdown'] as const;
export type ExportFormat = (typeof EXPORT_FORMATS)[number];

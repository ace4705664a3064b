/** The verbs that ask something of the SAs of a tunnel that is up. */
import type { ProbeResult, RekeyedResult } from '../control/results.ts';
import { flag, json, jsonOption, name, noOptions, UsageError, type VerbSpec } from './verb.ts';

/** Exit code when not all of it came about. */
const FAILED = 4;
const MAX_SECONDS = 3_600;

export const probe: VerbSpec = {
  group: 'Tunnels',
  usage: 'TUNNEL',
  summary: 'ask the peers of a tunnel whether they are alive, and how long the answer takes',
  details:
    'Sends an empty INFORMATIONAL request by each IKE SA of the tunnel, and waits for the answers. It takes the way of IKE; it does\n' +
    'not show that packets pass.',
  options: { ...jsonOption.options, wait: { type: 'string' } },
  optionHelp: { ...jsonOption.optionHelp, wait: 'seconds that the answers may take (default 10)' },
  positionals: [1, 1],
  exitCodes: { [FAILED]: 'a peer did not answer' },
  run: async (client, args, terminal) => {
    const result = await client.call('probe', { name: name(args), seconds: seconds(args.options.wait) });
    terminal.out(args.options.json === true ? json(result) : formatProbe(result));
    return result.peers.every(({ after }) => after !== undefined) ? undefined : FAILED;
  },
};

function seconds(wanted: string | boolean | undefined): number | undefined {
  if (typeof wanted !== 'string') return undefined;
  const found = /^\d+$/.test(wanted) ? Number(wanted) : 0;
  if (found > 0 && found <= MAX_SECONDS) return found;
  throw new UsageError(`probe: --wait ${wanted}: expected: seconds, 1 to ${MAX_SECONDS}`, 'probe');
}

function formatProbe({ peers }: ProbeResult): string {
  return peers
    .map(({ ikeSaId, remote, after, detail }) => {
      const answer = after === undefined ? `does not answer: ${detail}` : `answered after ${after.toFixed(1)} ms`;
      return `${remote} ${answer} (IKE SA #${ikeSaId})\n`;
    })
    .join('');
}

export const rekey: VerbSpec = {
  group: 'Tunnels',
  usage: 'TUNNEL',
  summary: 'replace the SAs of a tunnel by new ones with fresh keys, without interrupting it',
  details:
    'All of them, unless --ike or --child says which. Returns when the new ones are up. A peer that is busy with the same is asked\n' +
    'again after some seconds.',
  options: { ...jsonOption.options, ike: flag, child: { type: 'string' } },
  optionHelp: {
    ...jsonOption.optionHelp,
    ike: 'the IKE SAs alone, or beside the child',
    child: 'the CHILD SAs of the child with this name: that of its <sp>',
  },
  positionals: [1, 1],
  exitCodes: { [FAILED]: 'an SA was not replaced: the line says why' },
  run: async (client, args, terminal) => {
    const { ike, child } = args.options;
    const result = await client.call('rekey', {
      name: name(args),
      ike: ike === true,
      child: typeof child === 'string' ? child : undefined,
    });
    terminal.out(args.options.json === true ? json(result) : formatRekeyed(result));
    return result.sas.every(({ replacedBy }) => replacedBy !== undefined) ? undefined : FAILED;
  },
};

function formatRekeyed({ sas }: RekeyedResult): string {
  return sas
    .map(({ kind, id, name: child, replacedBy, detail }) => {
      const what = kind === 'ike' ? `IKE SA #${id}` : `CHILD SA #${id} ${child}`;
      return replacedBy === undefined
        ? `${what} was not replaced: ${detail}\n`
        : `${what} replaced by #${replacedBy}\n`;
    })
    .join('');
}

export const reauth: VerbSpec = {
  ...jsonOption,
  group: 'Tunnels',
  usage: 'TUNNEL',
  summary: 'have both ends authenticate anew, without interrupting the tunnel',
  details:
    'Negotiates a new IKE SA from the beginning, with all CHILD SAs of the old one, which goes when the new one has them. Returns\n' +
    'then. Where the new one cannot have them, the old one stays. Only the end that knows where the peer is can do it.',
  positionals: [1, 1],
  exitCodes: { [FAILED]: 'an IKE SA was not replaced: the line says why' },
  run: async (client, args, terminal) => {
    const result = await client.call('reauth', { name: name(args) });
    terminal.out(args.options.json === true ? json(result) : formatRekeyed(result));
    return result.sas.every(({ replacedBy }) => replacedBy !== undefined) ? undefined : FAILED;
  },
};

export const reset: VerbSpec = {
  ...noOptions,
  group: 'Tunnels',
  usage: 'TUNNEL',
  summary: 'delete the SAs of a tunnel, telling the peer, and negotiate new ones',
  details:
    'The device, the routes and the fence stay as they are, and protected packets do not pass in the clear meanwhile. A tunnel that\n' +
    "waits to be called, or for a packet, does so again. 'sectunnel restart' makes the device anew too.",
  positionals: [1, 1],
  run: async (client, args, terminal) => {
    const result = await client.call('reset', { name: name(args) });
    terminal.out(`Tunnel ${result.name} reset\n`);
  },
};

/** The verbs that show many tunnels: which of them, in which order, and how many is decided in the daemon. */
import { SORT_KEYS, STATES } from '../control/selection.ts';
import { formatList, formatStatus } from './format.ts';
import { type Arguments, type DaemonVerbSpec, flag, json, UsageError } from './verb.ts';

const selection: Pick<DaemonVerbSpec, 'usage' | 'positionals' | 'options' | 'optionHelp'> = {
  usage: '[TUNNEL …]',
  positionals: [0, Number.POSITIVE_INFINITY],
  options: { state: { type: 'string' }, sort: { type: 'string' }, limit: { type: 'string' }, json: flag },
  optionHelp: {
    state: `only tunnels in this state: ${STATES.join(', ')}`,
    sort: `by one of ${SORT_KEYS.join(', ')} (default name): those not up first, the last change first, or the most bytes first`,
    limit: 'the largest number of tunnels to list',
    json: 'as JSON, for programs',
  },
};
const PATTERNS = "TUNNEL may be a pattern of names, such as 'branch-*': * and ? and [a-z], quoted for the shell.";

function selected(verb: string, { positionals, options }: Arguments): Selected {
  const { state, sort, limit } = options;
  const count = limit === undefined ? undefined : Number(limit);
  if (count !== undefined && !(Number.isSafeInteger(count) && count > 0))
    throw new UsageError(`${verb}: --limit ${limit}: expected a number of tunnels, at least 1`, verb);
  return {
    ...(positionals.length === 0 ? {} : { patterns: positionals }),
    ...(typeof state === 'string' ? { state } : {}),
    ...(typeof sort === 'string' ? { sort } : {}),
    ...(count === undefined ? {} : { limit: count }),
  };
}

interface Selected {
  readonly patterns?: readonly string[];
  readonly state?: string;
  readonly sort?: string;
  readonly limit?: number;
}

export const list: DaemonVerbSpec = {
  ...selection,
  group: 'Inspection',
  summary: 'list tunnels; without options, the active ones',
  details:
    'Without options it also lists tunnels that are waiting to retry: the daemon starts them as soon as it can, and\n' +
    "their fences are in place meanwhile. 'sectunnel destroy' ends that. With names or --state, also inactive ones.\n" +
    PATTERNS,
  options: {
    all: flag,
    inactive: flag,
    persistent: flag,
    transient: flag,
    autostart: flag,
    name: flag,
    uuid: flag,
    ...selection.options,
  },
  optionHelp: {
    all: 'active and inactive tunnels',
    inactive: 'inactive tunnels',
    persistent: 'only defined tunnels',
    transient: 'only tunnels that are not defined',
    autostart: 'only tunnels that start with the daemon',
    name: 'only names, one per line',
    uuid: 'only UUIDs, one per line',
    ...selection.optionHelp,
  },
  run: async (client, args, terminal) => {
    const params = { ...selected('list', args), ...listed(args) };
    const { tunnels, unreadable } = await client.call('list', params);
    for (const tunnel of unreadable) {
      terminal.err(
        `warning: the documents of tunnel ${tunnel} cannot be read, so the packets that it protects are dropped; the log says why. Correct them and run 'sectunnel reload', or remove the fence with 'sectunnel destroy ${tunnel}'\n`,
      );
    }
    if (args.options.name === true) terminal.out(tunnels.map((tunnel) => `${tunnel.name}\n`).join(''));
    else if (args.options.uuid === true) terminal.out(tunnels.map((tunnel) => `${tunnel.uuid}\n`).join(''));
    else terminal.out(args.options.json === true ? json(tunnels) : formatList(tunnels));
    return undefined;
  },
};

function listed({ positionals, options }: Arguments): { active?: boolean; persistent?: boolean; autostart?: boolean } {
  const isChosen = positionals.length > 0 || options.state !== undefined;
  const persistent = options.persistent === true ? true : options.transient === true ? false : undefined;
  return {
    ...(options.inactive === true ? { active: false } : options.all === true || isChosen ? {} : { active: true }),
    ...(persistent === undefined ? {} : { persistent }),
    ...(options.autostart === true ? { autostart: true } : {}),
  };
}

export const status: DaemonVerbSpec = {
  ...selection,
  group: 'Inspection',
  summary: 'IKE and CHILD SAs, algorithms, selectors, counters, drops and the last failure',
  details: PATTERNS,
  run: async (client, args, terminal) => {
    const result = await client.call('status', selected('status', args));
    terminal.out(args.options.json === true ? json(result) : formatStatus(result));
    return undefined;
  },
};

/** What `sectunnel check` does: reads the documents, has them compared and tried out, and prints what was found. */
import { randomFillSync, randomUUID } from 'node:crypto';
import type { IpAddress } from '../base/address.ts';
import { SectunnelError } from '../base/error.ts';
import { identityFromText } from '../base/identity.ts';
import { checkDocument, checkPair, type PairReport } from '../check/check.ts';
import { type DryChild, type DryRun, dryRun } from '../check/dry-run.ts';
import { assumedAddresses } from '../check/ends.ts';
import type { Checked, Finding, Place, Side } from '../check/report.ts';
import { DocumentError } from '../config/errors.ts';
import { documentLines } from '../config/lines.ts';
import type { PeerAddress, SectunnelDocument } from '../config/model.ts';
import { parseDocument } from '../config/parse.ts';
import { toChildren } from '../config/selectors.ts';
import { MAX_DOCUMENT_BYTES } from '../config/size.ts';
import { nodeProvider } from '../crypto/node/provider.ts';
import type { RandomSource } from '../crypto/types.ts';
import { routingWarnings } from '../hostnet/steering/rules.ts';
import type { ConnectionConfig } from '../ike/config.ts';
import { matchesDnPattern } from '../pki/identity.ts';
import { type CertificateFacts, planTunnel, type TunnelPlan } from '../plan/plan.ts';
import { hostsOf } from '../policy/transport.ts';
import { type Arguments, json, RefusedInputError, readInput, STANDARD_INPUT, type Terminal } from './verb.ts';

export type CheckOutcome = 'fits' | 'doesNot' | 'unreadable';

export async function runCheck({ positionals, options }: Arguments, terminal: Terminal): Promise<CheckOutcome> {
  const [fileA, fileB] = positionals;
  const a = await load('a', fileA!, terminal);
  const b = fileB === undefined ? undefined : await load('b', fileB, terminal);
  if (a === undefined || (fileB !== undefined && b === undefined)) return 'unreadable';
  if (b === undefined) {
    const findings = [...(await planFindings(a)), ...checkDocument(a)];
    terminal.out(options.json === true ? json({ findings }) : formatAlone(a, findings));
    return findings.some(({ level }) => level === 'error') ? 'doesNot' : 'fits';
  }
  const report = await reportOn(a, b);
  terminal.out(options.json === true ? json(report) : formatPair(a, b, report));
  return report.willNegotiate ? 'fits' : 'doesNot';
}

const systemRandom: RandomSource = (length) => randomFillSync(new Uint8Array(length));

/** `undefined`, and told why, for one that cannot be read. */
async function load(side: Side, file: string, terminal: Terminal): Promise<Checked | undefined> {
  const title = file === '-' ? STANDARD_INPUT : file;
  try {
    const xml = await readInput(file, MAX_DOCUMENT_BYTES, terminal);
    const document = parseDocument(xml, { source: title, newUuid: () => randomUUID() });
    return { side, title, document, lines: documentLines(xml, title) };
  } catch (error) {
    if (!(error instanceof DocumentError || error instanceof RefusedInputError)) throw error;
    terminal.err(`error: ${error.message}\n`);
    return undefined;
  }
}

/** What the daemon would say of a document when it is started. */
async function planFindings(checked: Checked): Promise<Finding[]> {
  const finding = (level: 'error' | 'warning', message: string): Finding => {
    return { level, topic: 'document', message: `${checked.title}: ${message}`, places: [], change: '' };
  };
  const { document } = checked;
  const { local, remote } = document.sa;
  const other: SectunnelDocument = { ...document, sa: { ...document.sa, local: remote, remote: local } };
  const [here, there] = assumedAddresses(checked, { ...checked, document: other }, [
    transportHost(document),
    undefined,
  ]);
  try {
    const { device } = await planned(document, here, there, other);
    return (device.routing === undefined ? [] : routingWarnings(device.routing)).map((text) =>
      finding('warning', text),
    );
  } catch (error) {
    if (error instanceof SectunnelError) return [finding('error', error.message)];
    throw error;
  }
}

async function reportOn(a: Checked, b: Checked): Promise<PairReport> {
  try {
    return checkPair(a, b, await dryRuns(a, b), matchesDnPattern);
  } catch (error) {
    if (!(error instanceof SectunnelError || error instanceof RangeError)) throw error;
    const compared = checkPair(a, b, [], matchesDnPattern);
    const refused: Finding = { level: 'error', topic: 'document', message: error.message, places: [], change: '' };
    return { ...compared, willNegotiate: false, findings: [refused, ...compared.findings] };
  }
}

/**
 * With each side that knows whom to call as the initiator; none where one of the two protects nothing.
 * @throws SectunnelError, RangeError when the daemon would refuse one of the documents
 */
async function dryRuns(a: Checked, b: Checked): Promise<DryRun[]> {
  const hosts = [a, b].map(({ document }) => transportHost(document));
  const [atA, atB] = assumedAddresses(a, b, hosts);
  const [forA, forB] = [await connectionOf(a, atA, b, atB), await connectionOf(b, atB, a, atA)];
  if (forA === undefined || forB === undefined) return [];
  const sides = [
    { connection: forA, address: atA },
    { connection: forB, address: atB },
  ] as const;
  const callers = [a, b].filter(({ document }) => document.sa.remote.address.kind !== 'any');
  return callers.map(({ side }) => dryRun(side, ...sides, nodeProvider, systemRandom));
}

function transportHost(document: SectunnelDocument): IpAddress | undefined {
  const child = toChildren(document).find(({ mode }) => mode === 'transport');
  return child && hostsOf(child.selectors)?.local;
}

/** What the daemon would negotiate; `undefined` for a document that protects nothing. */
async function connectionOf(
  { title, document }: Checked,
  here: IpAddress,
  { document: other }: Checked,
  there: IpAddress,
): Promise<ConnectionConfig | undefined> {
  try {
    return (await planned(document, here, there, other)).tunnel.connections[0];
  } catch (error) {
    if (error instanceof SectunnelError) throw new SectunnelError(error.code, `${title}: ${error.message}`);
    throw error;
  }
}

/** What the daemon would run, with addresses in the place of names. @throws SectunnelError when it would refuse */
function planned(
  document: SectunnelDocument,
  here: IpAddress,
  there: IpAddress,
  other: SectunnelDocument,
): Promise<TunnelPlan> {
  const { sa } = document;
  const pinned: SectunnelDocument = {
    ...document,
    sa: {
      ...sa,
      local: { ...sa.local, address: pin(sa.local.address, here) },
      remote: { ...sa.remote, address: pin(sa.remote.address, there) },
    },
  };
  return planTunnel(pinned, { certificates: certified(document, other) });
}

function pin(address: PeerAddress, at: IpAddress): PeerAddress {
  return address.kind === 'fqdn' ? { kind: 'ip', address: at } : address;
}

/** Who has a certificate and does not say whose it is, is taken for the one that the other wants. */
function certified({ sa }: SectunnelDocument, other: SectunnelDocument): CertificateFacts {
  const wanted = other.sa.remote.id ?? { type: 'fqdn', text: 'certified.invalid' };
  const named = sa.local.id !== undefined || sa.auths.every(({ type }) => type === 'psk');
  return { localId: named ? undefined : identityFromText(wanted.type, wanted.text), authorities: [] };
}

function formatAlone({ title }: Checked, findings: readonly Finding[]): string {
  const head = findings.length === 0 ? `${title}: no problems found` : `${title}: ${counted(findings)}`;
  return `${[head, ...findings.flatMap(findingLines)].join('\n')}\n`;
}

function formatPair(a: Checked, b: Checked, { willNegotiate, findings, dryRuns: tried }: PairReport): string {
  const verdict = willNegotiate ? 'will negotiate with each other' : 'will NOT negotiate with each other';
  const told = findings.length === 0 ? '' : `: ${counted(findings)}`;
  const settled = willNegotiate ? settledLines(a, b, tried) : [];
  return `${[`${a.title} and ${b.title} ${verdict}${told}`, ...settled, ...findings.flatMap(findingLines)].join('\n')}\n`;
}

function counted(findings: readonly Finding[]): string {
  const levels = ['error', 'warning', 'note'] as const;
  const parts = levels.flatMap((level) => {
    const count = findings.filter((finding) => finding.level === level).length;
    return count === 0 ? [] : [`${count} ${level}${count === 1 ? '' : 's'}`];
  });
  return parts.join(', ');
}

function findingLines({ level, message, places, change }: Finding): string[] {
  const [first, ...more] = message.split('\n');
  return [
    '',
    `${level}: ${first}`,
    ...more.map((line) => `  ${line}`),
    ...places.map((place) => `  ${placeText(place)}`),
    ...(change === '' ? [] : [`  to change: ${change}`]),
  ];
}

/** As compilers print it, so that editors find it. */
function placeText({ title, line, says }: Place): string {
  return `${title}:${line}: ${says}`;
}

/** What the two settle on: once, if the initiator makes no difference. */
function settledLines(a: Checked, b: Checked, tried: readonly DryRun[]): string[] {
  const described = tried.map((dry) => ({ dry, lines: agreedLines(dry) }));
  const [first, second] = described;
  if (first === undefined) return [];
  const initiates = (side: Side): string => `${(side === 'a' ? a : b).title} initiates`;
  if (second === undefined) return ['', `when ${initiates(first.dry.initiator)}:`, ...first.lines];
  if (first.lines.join() === second.lines.join()) return ['', 'whichever side initiates:', ...first.lines];
  return described.flatMap(({ dry, lines }) => ['', `when ${initiates(dry.initiator)}:`, ...lines]);
}

function agreedLines({ ikeSuite, encapsulated, children }: DryRun): string[] {
  const esp = encapsulated ? 'ESP in UDP' : 'ESP straight over IP';
  return [`  IKE SA    ${ikeSuite}, ${esp}`, ...children.flatMap(childLines)];
}

function childLines({ a, b, mode, suite, selectors }: DryChild): string[] {
  const names = a === b ? `'${a}'` : `'${a}' with '${b}'`;
  return [`  CHILD SA  ${names}: ${mode}, ${suite}`, `            ${selectors}`];
}

/** Pairs of documents that fit each other, to be spoilt in one place, and documents turned round. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { PairReport } from '../../src/check/check.ts';
import type { Finding } from '../../src/check/report.ts';
import { run } from '../../src/cli/run.ts';
import type { SectunnelDocument, SecurityPolicy } from '../../src/config/model.ts';
import { temporaryFolder } from '../support/daemon.ts';

export const A = `<sectunnel type='ipsec'>
  <name>net</name>
  <sa>
    <local address='192.0.2.1'><id type='fqdn'>a.example</id></local>
    <remote address='192.0.2.2'><id type='fqdn'>b.example</id></remote>
    <auth type='psk'><secret uuid='11111111-2222-3333-4444-555555555501'/></auth>
    <ike start='trap'>
      <proposal encryption='aes128gcm16' prf='sha256' dh='x25519'/>
      <proposal encryption='aes128' integrity='sha256' prf='sha256' dh='ecp256'/>
      <lifetime soft='1000' hard='2000' jitter='100'/>
      <nat traversal='auto' port='4500'/>
    </ike>
    <esp>
      <proposal encryption='aes128gcm16' dh='x25519' esn='yes'/>
      <lifetime soft='500' hard='600' jitter='50'/>
    </esp>
  </sa>
  <sp name='lan'>
    <src_range address='10.1.0.0' prefixlen='24'/>
    <dst_range address='10.2.0.0' prefixlen='24'/>
    <upperspec protocol='any'/>
    <policy direction='both' action='ipsec'>
      <rule protocol='esp' mode='tunnel' level='require'><src address='any'/><dst address='any'/></rule>
    </policy>
  </sp>
</sectunnel>
`;

/** The other end of A. */
export const B: string = swap(swap(swap(A, '192.0.2.1', '192.0.2.2'), 'a.example', 'b.example'), '10.1.0', '10.2.0');

function swap(text: string, one: string, other: string): string {
  return text.replaceAll(one, '\0').replaceAll(other, one).replaceAll('\0', other);
}

export type Edit = readonly [from: string, to: string];

/** @throws Error when the document does not have what is to be replaced */
export function edit(xml: string, ...edits: readonly Edit[]): string {
  return edits.reduce((text, [from, to]) => {
    if (!text.includes(from)) throw new Error(`the document has no ${from}`);
    return text.replace(from, to);
  }, xml);
}

/** The line on which a text stands first. */
export function lineOf(xml: string, text: string): number {
  const at = xml.indexOf(text);
  if (at < 0) throw new Error(`the document has no ${text}`);
  return xml.slice(0, at).split('\n').length;
}

export interface Checked {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

/** `sectunnel check a.xml b.xml`, in the folder of the files. */
export async function check(documents: readonly string[], ...options: readonly string[]): Promise<Checked> {
  const folder = temporaryFolder();
  const files = documents.map((xml, at) => {
    const file = join(folder, `${'ab'[at]}.xml`);
    writeFileSync(file, xml);
    return file;
  });
  const got = { out: '', err: '' };
  const code = await run(['check', ...files, ...options], {
    out: (text) => {
      got.out += text;
    },
    err: (text) => {
      got.err += text;
    },
    readStdin: () => Promise.reject(new Error('nothing is read from standard input')),
    interrupted: () => Promise.resolve(),
  });
  const short = (text: string): string => text.replaceAll(`${folder}/`, '');
  return { code, out: short(got.out), err: short(got.err) };
}

export async function report(a: string, b: string): Promise<PairReport> {
  return JSON.parse((await check([a, b], '--json')).out) as PairReport;
}

/** Without the notes, which say what was not looked at. */
export function problemsOf({ findings }: { readonly findings: readonly Finding[] }): Finding[] {
  return findings.filter(({ level }) => level !== 'note');
}

/** The other end of a document. */
export function turned(document: SectunnelDocument): SectunnelDocument {
  const { sa, sps } = document;
  const known = sa.local.address.kind !== 'any';
  const sides = { local: 'remote', remote: 'local', both: 'both' } as const;
  return {
    ...document,
    sa: {
      ...sa,
      local: sa.remote,
      remote: sa.local,
      auths: sa.auths.map((auth) => ({ ...auth, side: sides[auth.side] })),
      ike: { ...sa.ike, start: known ? sa.ike.start : 'respond' },
    },
    sps: sps.map(turnedPolicy),
  };
}

function turnedPolicy(sp: SecurityPolicy): SecurityPolicy {
  const { srcRanges, dstRanges, policies } = sp;
  return {
    ...sp,
    srcRanges: dstRanges,
    dstRanges: srcRanges,
    policies: policies.map((policy) =>
      policy.action === 'ipsec'
        ? { ...policy, rule: { ...policy.rule, src: policy.rule.dst, dst: policy.rule.src } }
        : policy,
    ),
  };
}

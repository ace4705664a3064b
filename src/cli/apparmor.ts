/**
 * Whether AppArmor would let libvirt's daemon run a program: its hooks run under the daemon's own profile, and by that of
 * Debian and Ubuntu (`/etc/libvirt/hooks/** rmix`) they may start what is in /bin, /usr/bin and the like, and nothing else.
 */
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';

/** The modular daemon for networks has no profile of libvirt's. */
const PROFILE = 'usr.sbin.libvirtd';
/** Files that are read for one profile: it includes a local one and abstractions. */
const MAX_FILES = 64;

export interface AppArmorPlaces {
  /** Where profiles are. */
  readonly profiles: string;
  /** Says whether the kernel's AppArmor is on: `Y`. */
  readonly enabled: string;
}

export const APPARMOR: AppArmorPlaces = {
  profiles: '/etc/apparmor.d',
  enabled: '/sys/module/apparmor/parameters/enabled',
};

/** @returns what is to be done, for people; `undefined` where nothing stands in the way */
export function apparmorProblem(program: string, { profiles, enabled }: AppArmorPlaces): string | undefined {
  const path = join(profiles, PROFILE);
  if (!existsSync(path) || !existsSync(enabled) || readFileSync(enabled, 'utf8').trim() !== 'Y') return undefined;
  // As aa-disable and aa-complain leave it.
  if (['disable', 'force-complain'].some((folder) => existsSync(join(profiles, folder, PROFILE)))) return undefined;
  if (/^[^#\n]*flags=\([^)]*\b(?:complain|unconfined)\b/m.test(readFileSync(path, 'utf8'))) return undefined;
  const rules = rulesOf(path, profiles);
  const fitting = rules.filter(({ pattern }) => pattern.test(program));
  if (fitting.some(({ denies }) => !denies) && !fitting.some(({ denies }) => denies)) return undefined;
  const local = join(profiles, 'local', PROFILE);
  return (
    `AppArmor's profile of libvirtd (${path}) does not let hooks run ${program}, so no network that names a tunnel would start; ` +
    `add the line '${program} PUx,' to ${local}, then run 'apparmor_parser -r ${path}'`
  );
}

interface ExecRule {
  readonly pattern: RegExp;
  readonly denies: boolean;
}

/** Of a profile alone, not of those within it. */
function rulesOf(path: string, profiles: string): ExecRule[] {
  const variables = new Map<string, string[]>();
  const rules: ExecRule[] = [];
  const files = [path];
  // BOUNDED: MAX_FILES.
  for (let at = 0; at < Math.min(files.length, MAX_FILES); at++) {
    let depth = 0;
    for (const line of linesOf(files[at]!)) {
      const included = /^#?include\s+(?:if\s+exists\s+)?[<"]([^>"]+)[>"]/.exec(line)?.[1];
      const variable = /^(@\{\w+\})\s*\+?=\s*(.*)$/.exec(line);
      const rule = /^(?:audit\s+)?(deny\s+)?(?:file\s+)?"?([/@{][^\s"]*)"?\s+(\w+)(?:\s+->.*)?,/.exec(line);
      if (included !== undefined) {
        const file = included.startsWith('/') ? included : join(profiles, included);
        if (!files.includes(file)) files.push(file);
      } else if (variable !== null) {
        const [, name = '', values = ''] = variable;
        variables.set(name, [
          ...(variables.get(name) ?? []),
          ...values.split(/\s+/).map((value) => value.replaceAll('"', '')),
        ]);
      } else if (rule !== null && depth <= 1) {
        const [, denies, pattern = '', permissions = ''] = rule;
        if (permissions.includes('x'))
          rules.push({ pattern: globPattern(pattern, variables), denies: denies !== undefined });
      }
      if (line.endsWith('{')) depth++;
      else if (line === '}') depth--;
    }
  }
  return rules;
}

/** Of all files where it is a folder; empty where there is no such file. */
function linesOf(path: string): string[] {
  const found = statSync(path, { throwIfNoEntry: false });
  if (found === undefined) return [];
  if (found.isDirectory()) return readdirSync(path).flatMap((name) => linesOf(join(path, name)));
  return readFileSync(path, 'utf8')
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '' && (!line.startsWith('#') || line.startsWith('#include')));
}

/** apparmor.d(5): `*` and `?` stop at slashes, `**` does not; `{a,b}` and `[…]`. A variable that is not known fits nothing. */
function globPattern(glob: string, variables: ReadonlyMap<string, readonly string[]>): RegExp {
  const whole = glob.replace(/@\{\w+\}/g, (name) => {
    const values = variables.get(name);
    return values === undefined ? '\0' : `{${values.join(',')}}`;
  });
  let depth = 0;
  const source = whole.replace(/\*\*|\[[^\]]*\]|[^\w/]/g, (token) => {
    if (token === '**') return '.*';
    if (token.startsWith('[')) return token;
    switch (token) {
      case '*':
        return '[^/]*';
      case '?':
        return '[^/]';
      case '{':
        depth++;
        return '(?:';
      case '}':
        depth--;
        return ')';
      case ',':
        return depth > 0 ? '|' : ',';
      default:
        return `\\${token}`;
    }
  });
  return new RegExp(`^${source}$`);
}

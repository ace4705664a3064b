/** Whether the profile of libvirtd lets its hooks run our program. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { type AppArmorPlaces, apparmorProblem } from '../../src/cli/apparmor.ts';
import { temporaryFolder } from '../support/daemon.ts';

/** As in libvirt's own profile. */
const PROFILE = `#include <tunables/global>
@{LIBVIRT}="libvirt"
@{OWN}=/srv/a /srv/b

profile libvirtd /usr/sbin/libvirtd flags=(attach_disconnected) {
  #include <abstractions/base>
  # /opt/comment/bin/* PUx,
  / r,
  /** rwmkl,
  /bin/* PUx,
  /usr/bin/* PUx,
  /{usr/,}lib/udev/scsi_id PUx,
  /usr/{lib,lib64}/xen-common/bin/xen-toolstack PUx,
  @{OWN}/node? rPUx -> other,
  @{UNKNOWN}/node PUx,
  audit deny /{usr/,}bin/apparmor_parser rwxl,
  /etc/libvirt/hooks/** rmix,
  profile within {
    /opt/within/bin/* PUx,
  }
  include if exists <local/usr.sbin.libvirtd>
}
`;

function places(files: Readonly<Record<string, string>>, enabled = 'Y\n'): AppArmorPlaces {
  const folder = temporaryFolder();
  const put = (name: string, content: string): string => {
    const path = join(folder, name);
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, content);
    return path;
  };
  for (const [name, content] of Object.entries(files)) put(`apparmor.d/${name}`, content);
  return { profiles: join(folder, 'apparmor.d'), enabled: put('enabled', enabled) };
}

const OWN = { 'usr.sbin.libvirtd': PROFILE };

describe('the profile of libvirtd', () => {
  it.each([
    '/usr/bin/node',
    '/bin/node',
    '/lib/udev/scsi_id',
    '/usr/lib64/xen-common/bin/xen-toolstack',
    '/srv/b/node2',
  ])('lets hooks run %s', (program) => expect(apparmorProblem(program, places(OWN))).toBeUndefined());

  it.each([
    '/usr/local/bin/node',
    '/opt/node/bin/node',
    '/usr/bin/deep/node',
    '/usr/bin/apparmor_parser',
    '/opt/within/bin/node',
    '/opt/comment/bin/node',
    '/srv/b/node',
  ])('does not let hooks run %s, and it is said what to add', (program) => {
    const found = places(OWN);
    expect(apparmorProblem(program, found)).toContain(
      `add the line '${program} PUx,' to ${found.profiles}/local/usr.sbin.libvirtd, then run 'apparmor_parser -r `,
    );
  });

  it('lets them run what was added, in the file or the folder that is included', () => {
    const local = { 'local/usr.sbin.libvirtd': '/usr/local/bin/node PUx,\n' };
    expect(apparmorProblem('/usr/local/bin/node', places({ ...OWN, ...local }))).toBeUndefined();
    const folder = { 'abstractions/base/more': '/home/*/.nvm/** PUx,\n' };
    expect(apparmorProblem('/home/me/.nvm/v20/bin/node', places({ ...OWN, ...folder }))).toBeUndefined();
  });

  it('matters only where it is there, and AppArmor is on', () => {
    expect(apparmorProblem('/opt/node', places({}))).toBeUndefined();
    expect(apparmorProblem('/opt/node', places(OWN, 'N\n'))).toBeUndefined();
    expect(apparmorProblem('/opt/node', places({ ...OWN, 'disable/usr.sbin.libvirtd': '' }))).toBeUndefined();
    const complaining = PROFILE.replace('(attach', '(complain,attach');
    expect(apparmorProblem('/opt/node', places({ 'usr.sbin.libvirtd': complaining }))).toBeUndefined();
    const { profiles } = places(OWN);
    expect(apparmorProblem('/opt/node', { profiles, enabled: '/nowhere' })).toBeUndefined();
  });
});

/** A tunnel for everything, in a routing table of its own: it must not lead its own packets into itself. */
import { expect, it } from 'vitest';
import { cable, type Namespace } from '../support/lab/namespace.ts';
import { Ours } from '../support/lab/ours.ts';
import { describeInterop } from '../support/lab/requirements.ts';
import { ping } from '../support/lab/traffic.ts';
import { useLab } from '../support/lab/use-lab.ts';

const PSK = '11111111-2222-3333-4444-555555555501';
const TABLE = 7001;

interface End {
  readonly local: string;
  readonly remote: string;
  readonly device: string;
  readonly from: readonly [address: string, prefixLength: number];
  readonly to: readonly [address: string, prefixLength: number];
}

function document({ local, remote, device, from, to }: End): string {
  return `<sectunnel type='ipsec'>
  <name>all</name>
  ${device}
  <sa>
    <local address='${local}'/><remote address='${remote}'/>
    <auth type='psk'><secret uuid='${PSK}'/></auth>
  </sa>
  <sp name='all'>
    <src_range address='${from[0]}' prefixlen='${from[1]}'/>
    <dst_range address='${to[0]}' prefixlen='${to[1]}'/>
    <upperspec protocol='any'/>
    <policy direction='both' action='ipsec'>
      <rule protocol='esp' mode='tunnel' level='require'><src address='any'/><dst address='any'/></rule>
    </policy>
  </sp>
</sectunnel>`;
}

describeInterop('a tunnel for 0.0.0.0/0', ['namespaces', 'build'], () => {
  let left: Namespace;
  let ours: Ours;
  let theirs: Ours;

  useLab(async (lab) => {
    left = await lab.namespace('left');
    const right = await lab.namespace('right');
    await cable(
      { namespace: left, device: 'eth0', addresses: ['192.0.2.1/24'] },
      { namespace: right, device: 'eth0', addresses: ['192.0.2.2/24'] },
    );
    await left.ip(['addr add 10.1.0.1/24 dev lo']);
    await right.ip(['addr add 203.0.113.9/32 dev lo']);
    [ours, theirs] = [await Ours.start(lab, left), await Ours.start(lab, right)];
    for (const end of [ours, theirs]) await end.secret('a pre-shared key', PSK);
  });

  it('in a table of its own carries what is for anywhere, and leaves nothing behind', async () => {
    const own = `<device table='${TABLE}'/>`;
    const inner = ['10.1.0.0', 24] as const;
    const anywhere = ['0.0.0.0', 0] as const;
    const near: End = { local: '192.0.2.1', remote: '192.0.2.2', device: own, from: inner, to: anywhere };
    await ours.defineDocument('all', document(near));
    const far: End = { local: '192.0.2.2', remote: '192.0.2.1', device: '', from: anywhere, to: inner };
    await theirs.defineDocument('all', document(far));
    for (const end of [theirs, ours]) await end.command(['start', 'all']);

    expect(await ping(left, { source: '10.1.0.1', destination: '203.0.113.9' })).toBe(3);
    const table = (await left.exec(['ip', 'route', 'show', 'table', `${TABLE}`])).stdout;
    expect(table).toMatch(/^default dev \S+ .*src 10\.1\.0\.1/);
    expect(table).toContain('unreachable default');
    // The tunnel's own packets stay out of it.
    expect((await left.exec(['ip', 'rule'])).stdout).toMatch(/to 192\.0\.2\.2 iif lo ipproto esp .*goto/);

    await ours.command(['destroy', 'all']);
    expect((await left.exec(['ip', 'rule'])).stdout).not.toContain(`${TABLE}`);
    const routes = await left.exec(['ip', 'route', 'show', 'table', `${TABLE}`], { check: false });
    expect(routes.stdout).toBe('');
  });
});

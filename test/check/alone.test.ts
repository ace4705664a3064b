import { describe, expect, it } from 'vitest';
import { A, check, edit, lineOf } from './helpers.ts';

const LATE = `
  <sp name='late' priority='-1'>
    <src_range address='10.1.0.7' prefixlen='32'/>
    <dst_range address='10.2.0.0' prefixlen='24'/>
    <upperspec protocol='tcp'/>
    <policy direction='both' action='discard'/>
  </sp>
</sectunnel>`;

describe('check of one document', () => {
  it('finds no problems', async () => {
    expect(await check([A])).toEqual({ code: 0, out: 'a.xml: no problems found\n', err: '' });
  });

  it('names policies that are never reached, and those that take their packets', async () => {
    const xml = edit(A, ['\n</sectunnel>', LATE]);
    const { code, out } = await check([xml]);
    expect(code).toBe(0);
    expect(out).toBe(`a.xml: 1 warning

warning: 'late' of a.xml is never reached: 'lan' before it matches all its packets
  a.xml:${lineOf(xml, "action='discard'")}: <policy> of 'late', discard: 10.1.0.7 tcp === 10.2.0.0/24 tcp
  a.xml:${lineOf(xml, "action='ipsec'")}: <policy> of 'lan', protect: 10.1.0.0/24 === 10.2.0.0/24
  to change: give it a higher priority, narrow the policies before it, or remove it
`);
  });

  it('says what is accepted with a warning', async () => {
    const { out } = await check([
      edit(A, ["address='10.2.0.0' prefixlen='24'", "address='10.2.0.0' prefixlen='24' port='53'"]),
    ]);
    expect(out).toContain("warning: a.xml: line 18: <sp name='lan'>: protocol='any' with port 53 cannot be negotiated");
  });

  it('says what the daemon would refuse', async () => {
    const refused = await check([edit(A, ["mode='tunnel'", "mode='transport'"])]);
    expect(refused.code).toBe(1);
    const line = lineOf(A, '<rule');
    expect(refused.out).toContain(`error: a.xml: unsupported configuration: <rule mode='transport'> on line ${line}: `);
  });

  it.each([
    ['is not XML', '<sectunnel', 'error: a.xml'],
    ['is refused', edit(A, ["soft='500'", "soft='5000'"]), 'a.xml:15: <lifetime>'],
  ])('ends with exit code 2 when it %s', async (_what, xml, message) => {
    const { code, out, err } = await check([xml]);
    expect([code, out]).toEqual([2, '']);
    expect(err).toContain(message);
    expect((await check([A, xml])).code).toBe(2);
  });
});

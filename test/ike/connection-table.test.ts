import { describe, expect, it } from 'vitest';
import { type IpAddress, parseAddress, type SocketAddress } from '../../src/base/address.ts';
import { identityFromText } from '../../src/base/identity.ts';
import type { Candidates } from '../../src/ike/candidates.ts';
import type { ConnectionConfig } from '../../src/ike/config.ts';
import { ConnectionTable } from '../../src/ike/connection-table.ts';
import { connection } from '../support/ike-pair.ts';

const [HERE, THERE, ELSEWHERE] = ['192.0.2.1', '192.0.2.2', '192.0.2.3'].map((text) => parseAddress(text)!) as [
  IpAddress,
  IpAddress,
  IpAddress,
];

function between(name: string, local?: IpAddress, remote?: IpAddress): ConnectionConfig {
  const base = connection({ name });
  return { ...base, local: { ...base.local, address: local }, remote: { ...base.remote, address: remote } };
}

const at = (address: IpAddress, vrf?: string): SocketAddress => ({ address, port: 500, vrf });
const names = ({ configs }: Candidates): string[] => configs.map(({ name }) => name);

describe('the table of connections', () => {
  it('finds those that a peer may mean, in the order in which they were added', () => {
    const table = new ConnectionTable();
    table.set(between('from anywhere', HERE));
    table.set(between('exact', HERE, THERE));
    table.set(between('anything'));
    table.set(between('other', HERE, ELSEWHERE));
    table.set(between('to anywhere', undefined, THERE));
    expect(names(table.between(at(HERE), THERE))).toEqual(['from anywhere', 'exact', 'anything', 'to anywhere']);
    expect(names(table.between(at(HERE), ELSEWHERE))).toEqual(['from anywhere', 'anything', 'other']);
    expect(names(table.between(at(ELSEWHERE), THERE))).toEqual(['anything', 'to anywhere']);
    expect(names(table.between(at(THERE), HERE))).toEqual(['anything']);
  });

  it('keeps routing domains apart, whose addresses may be the same', () => {
    const table = new ConnectionTable();
    const plain = between('default', HERE, THERE);
    table.set(plain);
    table.set({ ...plain, name: 'blue', local: { ...plain.local, vrf: 'blue' } });
    expect(names(table.between(at(HERE), THERE))).toEqual(['default']);
    expect(names(table.between(at(HERE, 'blue'), THERE))).toEqual(['blue']);
    expect(names(table.between(at(HERE, 'red'), THERE))).toEqual([]);
  });

  it('keeps the families apart', () => {
    const table = new ConnectionTable();
    table.set(between('four', undefined, { family: 4, value: 1n }));
    expect(names(table.between(at(HERE), { family: 6, value: 1n }))).toEqual([]);
  });

  it('puts one in the place of another of its name, and forgets', () => {
    const table = new ConnectionTable();
    table.set(between('first', HERE, THERE));
    table.set(between('second', HERE, THERE));
    table.set(between('first', undefined, THERE));
    expect(names(table.between(at(HERE), THERE))).toEqual(['first', 'second']);
    expect(names(table.between(at(ELSEWHERE), THERE))).toEqual(['first']);
    expect([...table.values()].map(({ name }) => name)).toEqual(['first', 'second']);
    table.delete('first');
    table.delete('unknown');
    expect([table.has('first'), table.get('first'), names(table.between(at(HERE), THERE))]).toEqual([
      false,
      undefined,
      ['second'],
    ]);
  });

  it('asks nothing of the connections between the same ends a second time, until one is added or removed', () => {
    const table = new ConnectionTable();
    let read = 0;
    const add = (name: string, peer?: string): void => {
      const config = between(name, HERE, THERE);
      const id = peer === undefined ? undefined : identityFromText('fqdn', peer);
      const get: ProxyHandler<ConnectionConfig>['get'] = (target, key) => {
        if (key !== 'name') read++;
        return Reflect.get(target, key);
      };
      table.set(new Proxy({ ...config, remote: { ...config.remote, id } }, { get }));
    };
    for (let number = 0; number < 50; number++) add(`c${number}`, `c${number}.example`);
    const ask = (): string[] => {
      const candidates = table.between(at(HERE), THERE);
      expect(candidates.extensions.signs).toBe(false);
      expect(candidates.proposals.length).toBeGreaterThan(0);
      return candidates.forPeer(identityFromText('fqdn', 'C7.example')).map(({ name }) => name);
    };
    expect(ask()).toEqual(['c7']);
    read = 0;
    expect(ask()).toEqual(['c7']);
    expect(read).toBe(0);
    add('of anyone');
    expect(ask()).toEqual(['c7', 'of anyone']);
    expect(read).toBeGreaterThan(50);
  });
});

/**
 * libvirt's own `<secret>` documents: what describes a secret, never its value. No files here: that is the daemon's.
 */
import { randomUUID } from 'node:crypto';
import { quote } from './errors.ts';
import { Issues } from './issues.ts';
import { checkShape, type ElementShape } from './shape.ts';
import { attributeOf, parseUuid, readChoice, UUID_WANTED } from './values.ts';
import { element, layOut } from './write.ts';
import { childElements, textContent, withXml, type XmlNode } from './xml.ts';

/** What libvirt knows uses for, and `ipsec`, which the seed asks for. */
const USAGE_TYPES = ['ipsec', 'tls', 'volume', 'ceph', 'iscsi', 'vtpm'] as const;

export interface SecretUsage {
  readonly type: (typeof USAGE_TYPES)[number];
  /** The name that a document's `usage='…'` refers to. */
  readonly name: string;
}

export interface SecretDocument {
  readonly uuid: string;
  /** Not kept when the daemon ends. */
  readonly ephemeral: boolean;
  /** libvirt does not reveal the value of such a secret. */
  readonly private: boolean;
  readonly description: string | undefined;
  readonly usage: SecretUsage | undefined;
}

export interface SecretParseOptions {
  readonly source?: string | undefined;
  readonly newUuid?: () => string;
}

const YES_NO = { values: ['yes', 'no'] };
/** Where libvirt keeps the name of a use; for a volume it is a path. */
const USAGE_NAMES = {
  ipsec: 'name',
  tls: 'name',
  vtpm: 'name',
  ceph: 'name',
  iscsi: 'target',
  volume: 'volume',
} as const;

const SECRET_SHAPE: ElementShape = {
  attributes: { ephemeral: YES_NO, private: YES_NO },
  children: {
    uuid: { shape: { content: 'text' } },
    description: { shape: { content: 'text' } },
    usage: {
      shape: {
        attributes: { type: { required: true, values: USAGE_TYPES } },
        children: {
          name: { shape: { content: 'text' } },
          target: { shape: { content: 'text' } },
          volume: { shape: { content: 'text' } },
        },
      },
    },
  },
};

/** @throws DocumentError */
export function parseSecret(xml: string | Uint8Array, options: SecretParseOptions = {}): SecretDocument {
  const { source, newUuid = () => randomUUID() } = options;
  return withXml(xml, source, (root) => readSecret(root, source, newUuid));
}

function readSecret(root: XmlNode, source: string | undefined, newUuid: () => string): SecretDocument {
  const issues = new Issues();
  if (root.name === 'secret' && root.namespace === '') checkShape(issues, root, SECRET_SHAPE);
  else
    issues.add(root, `a <secret> is required, this is <${root.name}>`, {
      found: `<${root.name}>`,
      allowed: '<secret>',
    });
  issues.throwIfAny(source);
  const description = textOf(root, 'description');
  const secret = {
    uuid: readUuid(issues, root) ?? newUuid(),
    ephemeral: attributeOf(root, 'ephemeral') === 'yes',
    private: attributeOf(root, 'private') === 'yes',
    description: description?.trim() === '' ? undefined : description,
    usage: readUsage(issues, childElements(root, 'usage')[0]),
  };
  issues.throwIfAny(source);
  return secret;
}

export function dumpSecret(secret: SecretDocument): string {
  const { uuid, description, usage } = secret;
  const attributes = { ephemeral: secret.ephemeral ? 'yes' : 'no', private: secret.private ? 'yes' : 'no' };
  const content = [
    element('uuid', {}, uuid),
    ...(description === undefined ? [] : [element('description', {}, description)]),
    ...(usage === undefined
      ? []
      : [element('usage', { type: usage.type }, [element(USAGE_NAMES[usage.type], {}, usage.name)])]),
  ];
  return `${layOut(element('secret', attributes, content)).join('\n')}\n`;
}

function textOf(node: XmlNode, name: string): string | undefined {
  const child = childElements(node, name)[0];
  return child && textContent(child);
}

function readUuid(issues: Issues, root: XmlNode): string | undefined {
  const node = childElements(root, 'uuid')[0];
  if (node === undefined) return undefined;
  const found = textContent(node).trim();
  const uuid = parseUuid(found);
  if (uuid === undefined) {
    const message = `${quote(found)} is no UUID: ${UUID_WANTED} is required; leave <uuid> out to have one made`;
    issues.add(node, message, { found, allowed: UUID_WANTED });
  }
  return uuid;
}

function readUsage(issues: Issues, node: XmlNode | undefined): SecretUsage | undefined {
  const type = node && readChoice(node, 'type', USAGE_TYPES);
  if (node === undefined || type === undefined) return undefined;
  const wanted = USAGE_NAMES[type];
  const wrong = childElements(node).find((child) => child.name !== wanted);
  if (wrong !== undefined)
    issues.add(wrong, `it does not belong to type='${type}'; write <${wanted}>`, { allowed: `<${wanted}>` });
  const name = textOf(node, wanted)?.trim() ?? '';
  if (name !== '') return { type, name };
  issues.add(node, `type='${type}' needs a <${wanted}> that is not empty, to be found by; add it`, {
    allowed: `<${wanted}>`,
  });
  return undefined;
}

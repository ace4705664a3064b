/**
 * Numbers of libvirt's remote protocol, which are the same in every release (`remote_protocol.x`, `virnetprotocol.x`,
 * `virterror.h`): those that are used here.
 */

/** The program "remote" and its version. */
export const REMOTE_PROGRAM = 0x20008086;
export const REMOTE_VERSION = 1;

export const MessageType = { Call: 0, Reply: 1, Message: 2 } as const;

export const MessageStatus = { Ok: 0, Error: 1 } as const;

export const Procedure = {
  ConnectOpen: 1,
  ConnectClose: 2,
  NetworkDefineXml: 41,
  AuthList: 66,
  AuthPolkit: 70,
  SecretLookupByUuid: 141,
  SecretGetXmlDesc: 143,
  SecretGetValue: 145,
  SecretLookupByUsage: 147,
  ConnectListAllSecrets: 287,
  ConnectSecretEventRegisterAny: 380,
  /** Messages: a secret was defined or undefined, a value was set. */
  SecretEventLifecycle: 382,
  SecretEventValueChanged: 383,
} as const;

/** How a socket wants its clients to prove themselves. */
export const AuthType = { None: 0, Sasl: 1, Polkit: 2 } as const;

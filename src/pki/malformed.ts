/** The error of bytes that are not a certificate, or not one that is accepted. */
import { SectunnelError } from '../base/error.ts';

/** Bytes that are no certificate, or one that must not be worked with (`code` is `malformed`). The message is for people. */
export class MalformedCertificateError extends SectunnelError {
  override readonly name = 'MalformedCertificateError';

  constructor(message: string, cause?: unknown) {
    super('malformed', message, cause);
  }
}

/** Turns the errors of any reader into one that blames the certificate. @throws MalformedCertificateError */
export function readingCertificate<T>(read: () => T): T {
  try {
    return read();
  } catch (error) {
    if (error instanceof MalformedCertificateError) throw error;
    const text = `not an X.509 certificate: ${error instanceof Error ? error.message : error}`;
    throw new MalformedCertificateError(text, error);
  }
}

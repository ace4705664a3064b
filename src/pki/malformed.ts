/** The error of bytes that are not a certificate, or not one that is accepted. */

/** The message is for people. */
export class MalformedCertificateError extends Error {
  override readonly name = 'MalformedCertificateError';
}

/** Turns the errors of any reader into one that blames the certificate. @throws MalformedCertificateError */
export function readingCertificate<T>(read: () => T): T {
  try {
    return read();
  } catch (error) {
    if (error instanceof MalformedCertificateError) throw error;
    const text = `not an X.509 certificate: ${error instanceof Error ? error.message : error}`;
    throw new MalformedCertificateError(text, { cause: error });
  }
}

/** Security parameter indexes. */

/** The lowest SPI of ESP: those below are reserved (RFC 4303 §2.1). */
export const MIN_ESP_SPI = 256;

/** @param spi of an IKE SA. Returns 16 hexadecimal digits. */
export function formatIkeSpi(spi: bigint): string {
  return spi.toString(16).padStart(16, '0');
}

/** @param spi of a CHILD SA. Returns 8 hexadecimal digits. */
export function formatSpi(spi: number): string {
  return spi.toString(16).padStart(8, '0');
}

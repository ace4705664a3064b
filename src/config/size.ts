/** Largest document in bytes. */
export const MAX_DOCUMENT_BYTES = 0x10_0000;

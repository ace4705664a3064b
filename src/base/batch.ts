/**
 * A batch of packets in one long-lived buffer: how packets travel between devices, pipelines and sockets.
 *
 * Each packet has a slot of fixed size with headroom before it (outer header, SPI, sequence number, IV) and
 * tailroom behind it (padding, trailer, ICV), so that it is sealed and opened where it lies. A stage that drops a
 * packet sets its length to 0 and counts why; later stages pass over empty slots.
 *
 * A batch may have a landing area behind its slots, for packets that the system writes many of at once: a slot may hold
 * such a packet where it lies.
 */
export class PacketBatch {
  readonly buffer: Uint8Array;
  readonly capacity: number;
  readonly slotSize: number;
  readonly headroom: number;
  /** Offset in `buffer` of the first byte of the packet in each slot. */
  readonly offset: Int32Array;
  /** What the buffer has behind the slots; empty unless `allocate` gave more than was asked for. */
  readonly landing: Uint8Array;
  /** Length of the packet in each slot; 0 for one that was dropped. */
  readonly length: Int32Array;
  /** A number that a stage leaves for the next one: the index of an SA, of a path. */
  readonly tag: Int32Array;
  /** Traffic class byte (DSCP and ECN) of the outer header: to be sent with, or as received. */
  readonly trafficClass: Uint8Array;
  /** 1 for an outer packet that is larger than its path takes in one piece, as far as known: it may be fragmented. */
  readonly fragmentable: Uint8Array;
  readonly #begin: Int32Array;
  /** Slots 0 to `count - 1` are in use. */
  count = 0;

  /**
   * @param maxPacket largest packet in bytes that a slot holds beside its headroom and tailroom
   * @param allocate where the buffer comes from, such as a memory that others work in too; default: from the heap.
   *   When it is larger than asked for, the rest is `landing`
   */
  constructor(
    capacity: number,
    maxPacket: number,
    headroom = 64,
    tailroom = 320,
    allocate: (bytes: number) => Uint8Array = (bytes) => new Uint8Array(bytes),
  ) {
    this.capacity = capacity;
    this.headroom = headroom;
    this.slotSize = headroom + maxPacket + tailroom;
    this.buffer = allocate(capacity * this.slotSize);
    this.landing = this.buffer.subarray(capacity * this.slotSize);
    this.#begin = new Int32Array(capacity);
    this.offset = new Int32Array(capacity);
    this.length = new Int32Array(capacity);
    this.tag = new Int32Array(capacity);
    this.trafficClass = new Uint8Array(capacity);
    this.fragmentable = new Uint8Array(capacity);
  }

  /** Where a packet that is put into `slot` starts. */
  slotStart(slot: number): number {
    return slot * this.slotSize + this.headroom;
  }

  /** The first byte that belongs to the packet in a used slot: of its headroom, or of itself where it was placed. */
  slotBegin(slot: number): number {
    return this.#begin[slot]!;
  }

  /** The first byte behind a slot, tailroom included. */
  slotEnd(slot: number): number {
    return (slot + 1) * this.slotSize;
  }

  /** The most bytes that may stand in a slot from its start, tailroom included. */
  get slotRoom(): number {
    return this.slotSize - this.headroom;
  }

  /** Copies a packet into the next free slot. Returns its index, or -1 when the batch is full or the packet too large. */
  push(packet: Uint8Array): number {
    const slot = this.claim(packet.length);
    if (slot >= 0) this.buffer.set(packet, this.offset[slot]!);
    return slot;
  }

  /** Takes the next free slot for a packet of `length` bytes that the caller writes. Its index, or -1 as for `push`. */
  claim(length: number): number {
    if (this.count === this.capacity || length > this.slotRoom) return -1;
    const start = this.slotStart(this.count);
    return this.#use(start - this.headroom, start, length);
  }

  /** Takes a packet where it lies in `landing`, of which `packet` is a view. The index of its slot, or -1 when the batch is full. */
  place(packet: Uint8Array): number {
    if (this.count === this.capacity) return -1;
    const at = packet.byteOffset - this.buffer.byteOffset;
    return this.#use(at, at, packet.length);
  }

  #use(begin: number, at: number, length: number): number {
    const slot = this.count++;
    this.#begin[slot] = begin;
    this.offset[slot] = at;
    this.length[slot] = length;
    this.tag[slot] = 0;
    this.trafficClass[slot] = 0;
    this.fragmentable[slot] = 0;
    return slot;
  }

  /**
   * Whether `bytes` in front of the packet belong to it. Where they would not, a packet that was placed is moved behind
   * the headroom of its slot.
   */
  makeRoom(slot: number, bytes: number): boolean {
    const at = this.offset[slot]!;
    const length = this.length[slot]!;
    if (at - bytes >= this.#begin[slot]!) return true;
    if (bytes > this.headroom || length > this.slotRoom) return false;
    const start = this.slotStart(slot);
    this.buffer.copyWithin(start, at, at + length);
    this.#begin[slot] = start - this.headroom;
    this.offset[slot] = start;
    return true;
  }

  /** A view of the packet in `slot`. */
  packet(slot: number): Uint8Array {
    const at = this.offset[slot]!;
    return this.buffer.subarray(at, at + this.length[slot]!);
  }

  /** Empties the batch; its memory is kept. */
  clear(): void {
    this.count = 0;
  }
}

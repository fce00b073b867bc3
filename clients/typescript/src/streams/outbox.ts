/**
 * The chunks of a producer that are not known to be on disk, numbered. It has no sockets and no clock.
 *
 * - A chunk keeps its number, so sending it again does no harm.
 * - The text is well-formed UTF-16, because the daemon refuses half a surrogate pair. A pair that was cut
 *   between two texts of one part is joined again; a lone surrogate becomes U+FFFD.
 */
import { keyOf } from './progress.js';
import type { StreamPart } from './shapes.js';

/**
 * Longest text of a chunk, UTF-16 units. Each has at most 6 bytes in JSON, so that every chunk is shorter than
 * the daemon's 64 KiB.
 */
export const CHUNK_MOST = 8192;
/** Most chunks of one request. */
export const BATCH_CHUNKS = 500;
/** Most text of one request, UTF-16 units, so that it is shorter than the daemon's 4 MiB. */
export const BATCH_UNITS = 1 << 18;
/** Text that waits for the daemon before `append` waits as well, UTF-16 units. */
export const WAITING_UNITS = 1 << 20;
/** Chunks that wait for the daemon before `append` waits as well. */
export const WAITING_CHUNKS = 4096;

/** A chunk as it is sent. */
export interface OutChunk {
  index: number;
  chunk: string;
  part?: StreamPart | undefined;
}

export class Outbox {
  #chunks: OutChunk[] = [];
  #units = 0;
  /** The first half of a surrogate pair at the end of the text of a part. */
  readonly #halves = new Map<string, { half: string; part: StreamPart | undefined }>();

  /** `nextIndex`: the number of the next chunk. */
  constructor(private nextIndex: number) {}

  /** Whether `append` must wait. */
  get isFull(): boolean {
    return this.#units > WAITING_UNITS || this.#chunks.length > WAITING_CHUNKS;
  }

  /** The number of the first chunk that is not known to be on disk. */
  get acknowledgedIndex(): number {
    return this.#chunks[0]?.index ?? this.nextIndex;
  }

  add(text: string, part: StreamPart | undefined): void {
    const key = keyOf(part);
    let whole = (this.#halves.get(key)?.half ?? '') + text;
    this.#halves.delete(key);
    if (/[\ud800-\udbff]$/.test(whole)) {
      this.#halves.set(key, { half: whole.slice(-1), part });
      whole = whole.slice(0, -1);
    }
    this.#push(whole, part);
  }

  /** Nothing is added any more. */
  close(): void {
    for (const { half, part } of this.#halves.values()) this.#push(half, part);
    this.#halves.clear();
  }

  /** Returns the first chunks, as many as fit into a request. */
  batch(): OutChunk[] {
    const batch: OutChunk[] = [];
    let units = 0;
    for (const chunk of this.#chunks) {
      units += chunk.chunk.length;
      if (batch.length === BATCH_CHUNKS || (units > BATCH_UNITS && batch.length > 0)) break;
      batch.push(chunk);
    }
    return batch;
  }

  /** The chunks below `nextIndex` are on disk. */
  acknowledge(nextIndex: number): void {
    const rest = this.#chunks.findIndex(({ index }) => index >= nextIndex);
    const gone = this.#chunks.splice(0, rest < 0 ? this.#chunks.length : rest);
    for (const { chunk } of gone) this.#units -= chunk.length;
  }

  /** Removes every chunk. */
  discard(): void {
    this.#chunks = [];
    this.#units = 0;
  }

  #push(text: string, part: StreamPart | undefined): void {
    const whole = text.replace(/\p{Surrogate}/gu, '\ufffd');
    for (let from = 0; from < whole.length;) {
      let to = Math.min(whole.length, from + CHUNK_MOST);
      if (to < whole.length && /[\ud800-\udbff]/.test(whole.charAt(to - 1))) to -= 1;
      const chunk = whole.slice(from, to);
      this.#chunks.push(part ? { index: this.nextIndex, chunk, part } : { index: this.nextIndex, chunk });
      this.#units += chunk.length;
      this.nextIndex += 1;
      from = to;
    }
  }
}

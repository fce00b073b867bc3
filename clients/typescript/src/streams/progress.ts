/**
 * How far the text of one stream was received. Turns what the sessions deliver into pieces that never repeat
 * and never leave anything out.
 *
 * - A session continues after a cursor, or begins with the first chunk. In the second case the text that was
 *   received before is skipped by its length, part by part, because a stored text may be cut into other chunks
 *   than the live one was.
 * - It has no sockets and no clock.
 */
import type { ChunkFields, PartsWanted, StreamPart, StreamPartText } from './shapes.js';

/** A piece of the text of a stream. Concatenated, the pieces are what the producer wrote. */
export interface StreamPiece {
  text: string;
  /** The part that it belongs to; absent: plain text. */
  part?: StreamPart | undefined;
  /** The number of the last chunk in it. With `parts: 'text'` the chunks of other parts are left out. */
  index: number;
  /** The number of the first chunk in it. */
  firstIndex: number;
  /**
   * Drop the text that you have. The daemon no longer knows the cursor, for example because its data was
   * restored, and the text begins again.
   */
  reset?: true | undefined;
}

export class StreamProgress {
  /** The length of the received text, by part, in UTF-16 units. */
  #received = new Map<string, number>();
  /** Up to where the last event led, by part: less than what was received while text is skipped. */
  #session = new Map<string, number>();
  /** The lowest index that this session has not delivered. */
  #next = 0;
  /** Bytes of the received text without parts of other types, in UTF-8. */
  #textBytes = 0;

  /** `isWhole`: the first session begins with the first chunk, not after a cursor of the consumer. */
  constructor(
    private readonly parts: PartsWanted,
    private isWhole: boolean,
  ) {}

  /** Whether anything was received. */
  get isEmpty(): boolean {
    return this.#received.size === 0;
  }

  /** Whether a session may begin with the first chunk without repeating text. */
  get canBeginAgain(): boolean {
    return this.isWhole;
  }

  /** The length of the received text in UTF-8, which long-poll leaves out. */
  get textBytes(): number {
    return this.isWhole ? this.#textBytes : 0;
  }

  /** A session begins: after the last event, or with the first chunk. */
  begin(from: 'cursor' | 'start'): void {
    this.#next = 0;
    if (from === 'start') this.#session = new Map();
  }

  /** Forgets everything. Returns the piece that tells the consumer. */
  reset(): StreamPiece {
    this.#received = new Map();
    this.#textBytes = 0;
    this.isWhole = true;
    this.begin('start');
    return { text: '', index: 0, firstIndex: 0, reset: true };
  }

  /** Adds a chunk. Returns what is new in it. */
  chunk(event: ChunkFields): StreamPiece | undefined {
    const index = event.index ?? this.#next;
    if (index < this.#next) return undefined; // repeated within the session
    this.#next = index + 1;
    const text = this.#fresh(event.part, event.chunk);
    return text === '' ? undefined : pieceOf(text, event.part, event.first_index ?? index, index);
  }

  /** Adds the text of a part from `offset` on, as `GET` shows it up to the chunk before `nextIndex`. */
  snapshot(parts: readonly StreamPartText[], isAfterReceived: boolean, nextIndex: number): StreamPiece[] {
    this.#session = isAfterReceived ? new Map(this.#received) : new Map();
    const pieces: StreamPiece[] = [];
    for (const { text, part } of parts) {
      const fresh = this.#fresh(part ?? undefined, text);
      const last = Math.max(0, nextIndex - 1);
      if (fresh !== '') pieces.push(pieceOf(fresh, part, last, last));
    }
    return pieces;
  }

  /** Returns the part of `text` that was not received before. */
  #fresh(part: StreamPart | undefined, text: string): string {
    // Text alone is one text, whatever its parts are, because `GET` shows it so.
    const key = this.parts === 'text' ? '' : keyOf(part);
    const begins = this.#session.get(key) ?? 0;
    const ends = begins + text.length;
    const received = this.#received.get(key) ?? 0;
    this.#session.set(key, ends);
    if (ends <= received) return '';
    this.#received.set(key, ends);
    const fresh = text.slice(Math.max(0, received - begins));
    if (isText(part)) this.#textBytes += utf8Length(fresh);
    return fresh;
  }
}

/** Whether a part belongs to the text of the answer. */
export function isText(part: StreamPart | null | undefined): boolean {
  return !part || part.type === 'text';
}

/** Two parts are the same if type and id are. */
export function keyOf(part: StreamPart | null | undefined): string {
  return part ? `${part.type} ${part.id}` : '';
}

function pieceOf(text: string, part: StreamPart | null | undefined, firstIndex: number, index: number): StreamPiece {
  return part ? { text, part, index, firstIndex } : { text, index, firstIndex };
}

/** The length of a text in UTF-8. The text has no lone surrogates. */
function utf8Length(text: string): number {
  let bytes = 0;
  for (let at = 0; at < text.length; at += 1) {
    const unit = text.charCodeAt(at);
    // The two surrogates of a character have four bytes together.
    bytes += unit < 0x80 ? 1 : unit < 0x800 || (unit & 0xf800) === 0xd800 ? 2 : 3;
  }
  return bytes;
}

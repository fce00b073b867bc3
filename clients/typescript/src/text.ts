/**
 * Assembles the text of a language model from `stream_chunk` events.
 *
 * - The daemon may merge chunks for a reader that is behind (`first_index`…`index`), and a producer may
 *   repeat chunks. Text that exists is not added twice, and missing text is reported.
 * - A stream ends with `is_final`, or with an `error` that names its `request_id`.
 * - Only text counts: reasoning and other parts add nothing, but their numbers do not count as missing.
 */
import type { EventOf, NervewireEvent } from './events.js';
import { isText } from './streams/progress.js';

/** Longest text kept of a stream, in UTF-16 units. The rest counts as missing. */
export const TEXT_MOST = 8 << 20;
/** Latest chunk positions that are kept, so that a merged repeat can be placed over the text. */
export const PLACES_MOST = 4096;
/** Streams that a `TextAccumulator` keeps. Beyond it the oldest are removed, finished ones first. */
export const STREAMS_MOST = 256;

export interface TextState {
  requestId: string;
  text: string;
  /** Whether the stream has ended. */
  done: boolean;
  /** The error that ended the stream, if any. */
  error: { code: string; message: string } | undefined;
  /** Whether chunks are missing in `text`: they were no longer retained, or the text was too long. */
  incomplete: boolean;
}

type Chunk = EventOf<'stream_chunk'>;

/** One stream. `state` is a new object after every change. */
export class StreamText {
  #state: TextState;
  /** The next expected index, once an index was received. */
  #next: number | undefined;
  /** The position in the text where the chunk of an index begins. */
  readonly #places = new Map<number, number>();

  constructor(requestId: string) {
    this.#state = { requestId, text: '', done: false, error: undefined, incomplete: false };
  }

  get state(): TextState {
    return this.#state;
  }

  /** Adds an event of this stream and returns the added text. Other events are ignored. */
  push(event: NervewireEvent): string {
    const { requestId, done } = this.#state;
    if (done || !('request_id' in event) || event.request_id !== requestId) return '';
    if (event.type === 'error') {
      const { code, message } = event;
      this.#state = { ...this.#state, done: true, error: { code, message } };
      return '';
    }
    if (event.type !== 'stream_chunk') return '';
    return this.#chunk(event);
  }

  #chunk(chunk: Chunk): string {
    const { text } = this.#state;
    let { incomplete } = this.#state;
    const added = isText(chunk.part) ? chunk.chunk : '';
    let whole = text + added;
    const last = chunk.index;
    if (typeof last === 'number') {
      const first = typeof chunk.first_index === 'number' ? chunk.first_index : last;
      const next = this.#next;
      if (next !== undefined && last < next)
        whole = text; // the whole text is known
      else if (next !== undefined && first < next) {
        // A part is known: it is placed over the text from the position of its first chunk.
        const place = this.#places.get(first);
        if (place === undefined) {
          whole = text;
          incomplete = true;
        } else whole = text.slice(0, place) + added;
      } else {
        incomplete ||= first > (next ?? 0);
        this.#remember(first, text.length);
      }
      this.#next = Math.max(next ?? 0, last + 1);
    }
    if (whole.length > TEXT_MOST) {
      whole = whole.slice(0, TEXT_MOST);
      incomplete = true;
    }
    this.#state = { ...this.#state, text: whole, done: chunk.is_final, incomplete };
    return whole.slice(text.length);
  }

  #remember(index: number, place: number): void {
    this.#places.set(index, place);
    if (this.#places.size > PLACES_MOST) this.#places.delete(this.#places.keys().next().value as number);
  }
}

/** Many streams at once, by `request_id`. */
export class TextAccumulator {
  readonly #streams = new Map<string, StreamText>();

  /** Adds any event. If it belongs to a stream, returns the state of the stream and the added text. */
  push(event: NervewireEvent): (TextState & { delta: string }) | undefined {
    const id = 'request_id' in event ? event.request_id : undefined;
    if (typeof id !== 'string') return undefined;
    let stream = this.#streams.get(id);
    if (!stream) {
      this.#makeRoom();
      this.#streams.set(id, (stream = new StreamText(id)));
    }
    const delta = stream.push(event);
    return { ...stream.state, delta };
  }

  get(requestId: string): TextState | undefined {
    return this.#streams.get(requestId)?.state;
  }

  forget(requestId: string): void {
    this.#streams.delete(requestId);
  }

  #makeRoom(): void {
    if (this.#streams.size < STREAMS_MOST) return;
    let oldest: string | undefined;
    for (const [id, stream] of this.#streams) {
      oldest ??= id;
      if (stream.state.done) {
        oldest = id;
        break;
      }
    }
    if (oldest !== undefined) this.#streams.delete(oldest);
  }
}

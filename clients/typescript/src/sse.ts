/**
 * Parses `text/event-stream` (WHATWG HTML §9.2) from text parts of any size into messages.
 *
 * - A message without its blank line does not count: a stream that is cut inside one leaves the cursor
 *   unchanged.
 * - The daemon sends one data line per event; several lines are joined as the specification says.
 * - At most `EVENT_MOST` of an unfinished message is held. A longer one is an error.
 */
import { NervewireError } from './errors.js';

export interface Message {
  /** `message` if the stream names none. */
  event: string;
  data: string;
  /** The last `id:` of the stream. */
  id: string;
}

/**
 * UTF-16 units of one line, and of the data of one message. Far above the daemon's events, which are at most
 * 64 KiB.
 */
export const EVENT_MOST = 4 << 20;

export class SseParser {
  #rest = '';
  #skipLineFeed = false;
  #begun = false;
  #event = '';
  #data: string[] = [];
  /** The length of `#data`, including line ends. */
  #dataLength = 0;
  #id = '';
  #retryMs: number | undefined;

  /** The last value of `retry:`. */
  get retryMs(): number | undefined {
    return this.#retryMs;
  }

  /**
   * Parses the next part. Returns the messages that it completes. Throws `TOO_LARGE`; after that the parser
   * must not be used.
   */
  push(piece: string): Message[] {
    const scanned = this.#rest.length; // this part has no line end
    let text = this.#rest + piece;
    if (!this.#begun && text !== '') {
      this.#begun = true;
      if (text.startsWith('\ufeff')) text = text.slice(1);
    }
    const messages: Message[] = [];
    let from = 0;
    if (this.#skipLineFeed && text !== '') {
      if (text.startsWith('\n')) from = 1;
      this.#skipLineFeed = false;
    }
    const ends = /\r\n|\r|\n/g;
    ends.lastIndex = Math.max(from, scanned);
    for (let end = ends.exec(text); end; end = ends.exec(text)) {
      const message = this.#line(text.slice(from, end.index));
      if (message) messages.push(message);
      from = ends.lastIndex;
      // A carriage return at the very end may be the first half of a CR LF.
      this.#skipLineFeed = end[0] === '\r' && from === text.length;
    }
    this.#rest = text.slice(from);
    limit(this.#rest.length);
    return messages;
  }

  #line(line: string): Message | undefined {
    if (line === '') return this.#dispatch();
    limit(line.length);
    const colon = line.indexOf(':');
    if (colon === 0) return undefined; // a comment
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? '' : line.slice(line[colon + 1] === ' ' ? colon + 2 : colon + 1);
    if (field === 'data') {
      limit((this.#dataLength += value.length + 1));
      this.#data.push(value);
    } else if (field === 'event') this.#event = value;
    else if (field === 'id' && !value.includes('\0')) this.#id = value;
    else if (field === 'retry' && /^\d+$/.test(value)) this.#retryMs = Number(value);
    return undefined;
  }

  #dispatch(): Message | undefined {
    const message = { event: this.#event || 'message', data: this.#data.join('\n'), id: this.#id };
    const isEmpty = this.#data.length === 0;
    this.#event = '';
    this.#data = [];
    this.#dataLength = 0;
    return isEmpty ? undefined : message;
  }
}

function limit(length: number): void {
  if (length > EVENT_MOST) throw new NervewireError('TOO_LARGE', `a message of the event stream is longer than ${EVENT_MOST}`);
}

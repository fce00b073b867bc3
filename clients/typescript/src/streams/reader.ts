/**
 * The reader of one stream: its text from the first chunk, each piece exactly once, over any transport, and
 * how it ended.
 *
 * - `#cursor` is the last event that was received. Only events of the stream move it, so the position never
 *   passes a chunk.
 * - The queue has no limit of its own: pieces of a slow consumer are merged, and a stream has at most the text
 *   that the daemon allows (`streams.bytes`).
 */
import { asError, NervewireError } from '../errors.js';
import type { GapFrame, NervewireEvent } from '../events.js';
import { Queue } from '../queue.js';
import { keepReading, type Host, type Status } from '../reconnect.js';
import type { Sink, StreamTarget } from '../transports/session.js';
import { overSse } from '../transports/sse.js';
import { overStreamPoll } from '../transports/stream-poll.js';
import { overWebSocket } from '../transports/ws.js';
import { isText, keyOf, StreamProgress, type StreamPiece } from './progress.js';
import type { PartsWanted, StreamEndFrame, StreamFailure, StreamInfo, StreamState, StreamWithText } from './shapes.js';

/** Longest piece that waiting pieces are merged into, UTF-16 units. */
export const MERGED_MOST = 1 << 16;

/** How a stream ended. */
export interface StreamEnd {
  state: Exclude<StreamState, 'open'>;
  finishReason: string | undefined;
  usage: Record<string, unknown> | undefined;
  /** Why it did not complete. */
  error: StreamFailure | undefined;
  /** Whether there was text that could no longer be read, because it has expired. */
  incomplete: boolean;
}

export interface ReadStreamOptions {
  /** `all` also delivers reasoning, tool calls and other parts. */
  parts?: PartsWanted | undefined;
  signal?: AbortSignal | undefined;
  /** The `cursor` of an earlier reader: continue after it. */
  cursor?: string | undefined;
  onStatus?: ((status: Status) => void) | undefined;
}

type WaitingPiece = StreamPiece & { cursor: string | undefined };

const RUN = { ws: overWebSocket, sse: overSse, poll: overStreamPoll };

export class StreamReader implements AsyncIterableIterator<StreamPiece, undefined> {
  /**
   * Resolves when the stream has ended and its whole text has arrived. Rejects if the stream cannot be read: for
   * example `NOT_FOUND`, or `CLOSED` after `close()`.
   */
  readonly finished: Promise<StreamEnd>;
  readonly #queue = new Queue<WaitingPiece>();
  readonly #closing = new AbortController();
  readonly #progress: StreamProgress;
  readonly #parts: PartsWanted;
  #cursor: string | undefined;
  /** Events and responses that arrived. */
  #arrived = 0;
  #taken: string | undefined;
  #status: Status;
  #failure: StreamFailure | undefined;
  #end: StreamEndFrame | undefined;
  #isIncomplete = false;
  #settle: { resolve(end: StreamEnd): void; reject(error: NervewireError): void };
  readonly #outerAborted = () => this.close();

  constructor(
    private readonly host: Host,
    readonly requestId: string,
    private readonly options: ReadStreamOptions,
  ) {
    const { parts = 'text', cursor, signal } = options;
    this.#parts = parts;
    this.#progress = new StreamProgress(parts, cursor === undefined);
    this.#cursor = this.#taken = cursor;
    this.#status = { state: 'connecting', transport: host.steps[0] ?? 'poll', attempt: 1 };
    this.#settle = { resolve() {}, reject() {} };
    this.finished = new Promise((resolve, reject) => (this.#settle = { resolve, reject }));
    this.finished.catch(() => {}); // without a reader of `finished`, the iterator reports the error
    signal?.addEventListener('abort', this.#outerAborted);
    if (signal?.aborted) this.close();
    else queueMicrotask(() => void this.#read()); // no callback runs before `readStream` has returned
  }

  get status(): Status {
    return this.#status;
  }

  /** The position after the last piece that you took. Store it together with the text to continue later. */
  get cursor(): string | undefined {
    return this.#taken;
  }

  /** Reads to the end and returns the text; `finished` tells how the stream ended. */
  async text(): Promise<string> {
    let text = '';
    for await (const piece of this) {
      if (piece.reset) text = '';
      if (isText(piece.part)) text += piece.text;
    }
    return text;
  }

  /** Stops reading. The stream goes on. */
  close(): void {
    if (this.#status.state !== 'closed') this.#over(undefined, new NervewireError('CLOSED', 'the reader was closed'));
  }

  async next(): Promise<IteratorResult<StreamPiece, undefined>> {
    const result = await this.#queue.next();
    if (result.done) return result;
    const { cursor, ...piece } = result.value;
    this.#taken = cursor;
    return { done: false, value: piece };
  }

  /** `break` in a `for await` closes the reader. */
  return(): Promise<IteratorResult<StreamPiece, undefined>> {
    this.close();
    return Promise.resolve({ done: true, value: undefined });
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  async #read(): Promise<void> {
    const filter = new URLSearchParams({ request_id: this.requestId, parts: this.#parts });
    const end = await keepReading(this.host, {
      closing: this.#closing.signal,
      filter,
      run: RUN,
      position: () => ({ cursor: this.#cursor }),
      reached: () => this.#arrived,
      target: (signal) => this.#target(signal),
      sink: (session) => this.#sink(session),
      opened: () => {},
      report: (status) => this.#report(status),
      caughtUp: () => Promise.resolve(),
    });
    if (end?.verdict === 'done') await this.#finish();
    else if (end) this.#over(end.error, end.error);
  }

  #sink(session: AbortController): Omit<Sink, 'opened'> {
    this.#progress.begin(this.#cursor === undefined ? 'start' : 'cursor');
    const { signal } = session;
    return {
      event: (event) => {
        if (!signal.aborted) this.#event(event);
      },
      gap: (gap) => {
        if (!signal.aborted) this.#gap(gap, session);
      },
      caughtUp: () => {},
      cursor: () => {},
      room: () => this.#queue.limit,
      drained: () => Promise.resolve(),
    };
  }

  #target(signal: AbortSignal): StreamTarget {
    return {
      requestId: this.requestId,
      parts: this.#parts,
      offset: () => this.#progress.textBytes,
      snapshot: (stream) => {
        if (!signal.aborted) this.#snapshot(stream);
      },
      done: (end) => {
        if (!signal.aborted) this.#end = end;
      },
    };
  }

  #event(event: NervewireEvent): void {
    if (!('request_id' in event) || event.request_id !== this.requestId) return;
    this.#cursor = event.id;
    this.#arrived += 1;
    if (event.type === 'error') this.#failure = { code: event.code, message: event.message };
    else if (event.type === 'stream_chunk') this.#push(this.#progress.chunk(event));
  }

  /** A cursor did not lead to the text after it. The text is read again from its start. */
  #gap(gap: GapFrame, session: AbortController): void {
    if (this.#cursor === undefined) {
      this.#isIncomplete = true;
      return;
    }
    this.#cursor = undefined;
    this.#failure = undefined;
    if (gap.reason === 'unknown_cursor' || !this.#progress.canBeginAgain) this.#push(this.#progress.reset());
    session.abort();
  }

  #snapshot({ text, parts, next_index }: StreamWithText): void {
    if (!this.#progress.canBeginAgain) this.#push(this.#progress.reset());
    this.#arrived += 1;
    this.#cursor = undefined; // a later session on another transport skips what was received
    if (text === null) this.#isIncomplete ||= this.#progress.isEmpty && next_index > 0;
    const pieces =
      this.#parts === 'all'
        ? this.#progress.snapshot(parts ?? [], false, next_index)
        : this.#progress.snapshot([{ part: null, text: text ?? '' }], true, next_index);
    pieces.forEach((piece) => this.#push(piece));
  }

  #push(piece: StreamPiece | undefined): void {
    if (!piece) return;
    const { last } = this.#queue;
    const cursor = this.#cursor;
    const fits = last && !piece.reset && keyOf(last.part) === keyOf(piece.part);
    if (last && fits && last.text.length + piece.text.length <= MERGED_MOST) {
      last.text += piece.text;
      last.index = piece.index;
      last.cursor = cursor;
    } else this.#queue.push({ ...piece, cursor });
  }

  /** All text has arrived. Finds out how the stream ended, if the daemon did not say it. */
  async #finish(): Promise<void> {
    let end = this.#end;
    if (end && 'error' in end) this.#failure ??= end.error ?? undefined;
    try {
      if (!end || (end.state !== 'completed' && !this.#failure)) end = await this.#lookUp();
      if (this.#closing.signal.aborted) return;
    } catch (thrown) {
      const error = asError(thrown);
      return this.#over(error, error);
    }
    const { state, finish_reason, usage } = end;
    if (state === 'open') {
      const error = new NervewireError('NOT_NERVEWIRE', 'the daemon ended the response, but not the stream');
      return this.#over(error, error);
    }
    const error = state === 'completed' ? undefined : this.#failure;
    const incomplete = this.#isIncomplete;
    this.#settle.resolve({ state, finishReason: finish_reason ?? undefined, usage: usage ?? undefined, error, incomplete });
    this.#over(undefined, undefined);
  }

  async #lookUp(): Promise<StreamInfo> {
    // Without any text, the response shows whether it has expired.
    const text = this.#progress.isEmpty && this.#cursor === undefined;
    const call = { query: { text }, signal: this.#closing.signal };
    const { body } = await this.host.http.call('GET', `/streams/${encodeURIComponent(this.requestId)}`, call);
    const stream = (body as { data: StreamWithText }).data;
    if (stream.text === null && stream.text_bytes > 0) this.#isIncomplete = true;
    this.#failure ??= stream.error ?? undefined;
    return stream;
  }

  #report(status: Status): void {
    if (this.#status.state === 'closed') return;
    this.#status = status;
    this.options.onStatus?.(status);
  }

  /** `thrown` ends the iteration with an error, `rejected` is what `finished` gets. */
  #over(thrown: NervewireError | undefined, rejected: NervewireError | undefined): void {
    this.#report(thrown ? { state: 'closed', error: thrown } : { state: 'closed' });
    this.#closing.abort();
    this.options.signal?.removeEventListener('abort', this.#outerAborted);
    if (rejected && !thrown) this.#queue.discard();
    else this.#queue.end(thrown);
    if (rejected) this.#settle.reject(rejected);
    this.host.left(this);
  }
}

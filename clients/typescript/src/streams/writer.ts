/**
 * The producer of one stream: numbers its chunks, keeps those that are not known to be on disk, and sends them
 * again until they are.
 *
 * - One request with chunks is on its way at a time. What is appended meanwhile goes into the next one, so
 *   nothing waits that could be sent.
 * - Every request can be repeated: chunks have their number, and the end of a stream is the same end again.
 * - While the model is silent, the lease is renewed, and a subscription of the client tells when somebody
 *   cancels the stream.
 */
import { sleep, type Backoff } from '../backoff.js';
import { dataOf } from '../collection.js';
import { asError, NervewireError, StreamStateError } from '../errors.js';
import { freshKey, REQUEST_TRIES, RETRY_AFTER_MOST_MS, type Http } from '../http.js';
import { repeatAfterMs } from '../verdict.js';
import { Outbox } from './outbox.js';
import type { OpenedStream, StreamInfo, StreamPart } from './shapes.js';
import type { EndWatch } from './watch.js';

/** How long a request is repeated without success before it fails, milliseconds. */
export const RETRY_FOR_MS = 300_000;
/** Silence after which the writer also listens for the end of its stream, milliseconds. */
export const QUIET_MS = 1_000;
/** The lease is renewed after this share of it. */
export const RENEW_AFTER = 1 / 3;
/** Longest time between two renewals if nothing tells when the stream is cancelled, milliseconds. */
export const BLIND_RENEW_MS = 5_000;

/** Longest message of a stream that failed because its pipe was aborted, UTF-16 units. */
const ABORT_MESSAGE_MOST = 2048;

export interface WriterHost {
  http: Http;
  backoff: () => Backoff;
  watch: EndWatch;
  /** Called when it has ended. */
  left(writer: StreamWriter): void;
}

export interface AppendOptions {
  /** The part of the answer that the text belongs to; without it, plain text. */
  part?: StreamPart | undefined;
}

export interface FinishOptions {
  /** Why the model stopped, at most 64 bytes. */
  finishReason?: string | undefined;
  /** What it cost, at most 8 KiB as JSON. */
  usage?: Record<string, unknown> | undefined;
}

export interface OpenStreamOptions {
  /** The id of the stream. Choose one that nobody can guess, or leave it out to get a new one. */
  requestId?: string | undefined;
  agentId?: string | undefined;
  /** The user who may read it; absent: the credential's user, or everybody in the organization. */
  userId?: string | undefined;
  metadata?: Record<string, unknown> | undefined;
  /** How long the producer may be silent, 5 to 600; 60 if absent. The writer renews the lease by itself. */
  leaseSeconds?: number | undefined;
  /** The agent's status follows the stream: `thinking`, then `idle`. Needs `agentId`. */
  agentStatus?: boolean | undefined;
  /** Continue the stream if it is open, at `nextIndex`. Its previous producer can write no more. */
  takeover?: boolean | undefined;
}

/** Waits for room, or for everything to be on disk. */
interface Waiting {
  isDue(): boolean;
  resolve(): void;
  reject(error: NervewireError): void;
}

export class StreamWriter {
  readonly requestId: string;
  /** How often the stream was opened or taken over. */
  readonly generation: number;
  readonly leaseSeconds: number;
  /**
   * Aborted when there is no use in producing more: the stream was cancelled or taken over, or its text was
   * refused. Pass it to the call of the model. `reason` is the error, usually a `StreamStateError`.
   */
  readonly signal: AbortSignal;
  readonly #token: string;
  readonly #outbox: Outbox;
  readonly #useless = new AbortController();
  readonly #closing = new AbortController();
  /** Why nothing can be appended any more. */
  #error: NervewireError | undefined;
  /** Whether `finish`, `fail` or `cancel` was called and did not fail. */
  #isEnding = false;
  #isSending = false;
  #isWatched = false;
  #hasLeft = false;
  #waiting: Waiting[] = [];
  #lastWordAt = Date.now();
  #timer: ReturnType<typeof setTimeout> | undefined;
  #checking: Promise<void> | undefined;
  #writable: WritableStream<string> | undefined;
  #controller: WritableStreamDefaultController | undefined;

  /** Use `client.openStream`. */
  constructor(
    private readonly host: WriterHost,
    opened: OpenedStream,
  ) {
    this.requestId = opened.request_id;
    this.generation = opened.generation;
    this.leaseSeconds = opened.lease_seconds;
    this.signal = this.#useless.signal;
    this.#token = opened.producer_token;
    this.#outbox = new Outbox(opened.next_index);
    this.#lookLater();
  }

  /** The number of the first chunk that is not known to be on disk. After a takeover: of the next chunk. */
  get nextIndex(): number {
    return this.#outbox.acknowledgedIndex;
  }

  /**
   * Appends text. Resolves as soon as more can be appended, usually at once: await it, so that a model that is
   * faster than the daemon waits. Rejects if the stream has ended, or if text was refused.
   */
  append(text: string, { part }: AppendOptions = {}): Promise<void> {
    const refused = this.#error ?? (this.#isEnding ? this.#ended() : undefined);
    if (refused) return handled(Promise.reject(refused));
    this.#outbox.add(text, part);
    void this.#send();
    return this.#when(() => !this.#outbox.isFull);
  }

  /** Resolves when everything that was appended is on disk. */
  flush(): Promise<void> {
    return this.#error ? handled(Promise.reject(this.#error)) : this.#when(() => this.#outbox.batch().length === 0);
  }

  /** Appends what is left, and completes the stream. */
  finish({ finishReason, usage }: FinishOptions = {}): Promise<StreamInfo> {
    return this.#end('finish', { finish_reason: finishReason, usage }, () => this.#flushLast());
  }

  /**
   * Appends what is left, and ends the stream with an error that its readers get. `code` has at most 64 bytes,
   * `message` 8 KiB.
   */
  fail(code: string, message: string): Promise<StreamInfo> {
    const flushed = async () => {
      // Text that the daemon refuses does not keep the stream from ending.
      await this.#flushLast().catch((error: NervewireError) => {
        if (this.#isOver(error)) throw error;
      });
    };
    return this.#end('fail', { code, message }, flushed);
  }

  /**
   * Cancels the stream at once, without what is not sent yet. Needs the right to cancel it, which the stream's
   * user has.
   */
  cancel(reason?: string): Promise<StreamInfo> {
    const dropped = () => {
      this.#outbox.discard();
      return Promise.resolve();
    };
    return this.#end('cancel', reason === undefined ? {} : { reason }, dropped);
  }

  /**
   * Renews the lease. The writer does it by itself as long as its process runs, so that a model may think for
   * as long as it needs.
   */
  async renew(): Promise<StreamInfo> {
    if (this.#isOver(this.#error)) throw this.#error;
    try {
      return await this.#say<StreamInfo>('renew', undefined);
    } catch (thrown) {
      throw this.#noted(asError(thrown));
    }
  }

  /**
   * A `WritableStream` for `text.pipeTo(writer.writable)`. Closing it finishes the stream, aborting it fails the
   * stream. It breaks when the stream was cancelled, so that the source of the pipe is cancelled too.
   */
  get writable(): WritableStream<string> {
    this.#writable ??= new WritableStream<string>({
      start: (controller) => {
        this.#controller = controller;
        if (this.#error) controller.error(this.#error);
      },
      write: (text) => this.append(text),
      close: async () => {
        await this.finish();
      },
      abort: async (reason) => {
        // If this fails, the lease ends the stream; the pipe reports why it was aborted.
        const message = asError(reason).message.slice(0, ABORT_MESSAGE_MOST);
        await this.fail('PRODUCER_FAILED', message).catch(() => {});
      },
    });
    return this.#writable;
  }

  /** Stops writing without ending the stream: its lease ends, unless another producer takes it over. */
  close(): void {
    if (this.#hasLeft) return;
    this.#lost(new NervewireError('CLOSED', 'the writer was closed'));
    this.#closing.abort();
    this.#leave();
  }

  /** Asks the daemon whether the stream is still open, for the client's watch. */
  check(): void {
    this.#checking ??= this.renew()
      .then(
        () => {},
        () => {}, // an end was noted; anything else is tried again by the timer
      )
      .finally(() => (this.#checking = undefined));
  }

  async #send(): Promise<void> {
    if (this.#isSending || this.#error) return;
    this.#isSending = true;
    try {
      for (let batch = this.#outbox.batch(); batch.length > 0 && !this.#error; batch = this.#outbox.batch()) {
        const { next_index } = await this.#say<{ next_index: number }>('chunks', batch);
        this.#outbox.acknowledge(next_index);
        this.#tell();
      }
    } catch (thrown) {
      this.#noted(asError(thrown));
      this.#lost(asError(thrown));
    } finally {
      this.#isSending = false;
    }
  }

  #flushLast(): Promise<void> {
    this.#outbox.close();
    void this.#send();
    return this.flush();
  }

  async #end(word: string, body: object, before: () => Promise<void>): Promise<StreamInfo> {
    if (this.#isOver(this.#error)) throw this.#error;
    if (this.#isEnding) throw this.#ended();
    this.#isEnding = true;
    try {
      await before();
      const stream = await this.#say<StreamInfo>(word, body);
      this.#leave();
      if (word === 'cancel') this.#lost(new StreamStateError('STREAM_CANCELLED', 'this writer cancelled the stream'));
      return stream;
    } catch (thrown) {
      this.#isEnding = false; // it may be tried again
      throw this.#noted(asError(thrown));
    }
  }

  /** Sends a word of the producer until there is an answer. */
  async #say<T>(word: string, body: unknown): Promise<T> {
    const { http } = this.host;
    const backoff = this.host.backoff();
    const path = `/streams/${encodeURIComponent(this.requestId)}/${word}`;
    const headers = { 'x-producer-token': this.#token };
    const { signal } = this.#closing;
    const beganAt = Date.now();
    for (;;) {
      try {
        const answer = await http.call('POST', path, { body, headers, signal });
        this.#lastWordAt = Date.now();
        return dataOf<T>(answer);
      } catch (thrown) {
        const error = asError(thrown);
        const wait = signal.aborted ? undefined : repeatAfterMs(error);
        if (wait === undefined || Date.now() - beganAt > RETRY_FOR_MS) throw error;
        await sleep(backoff.next(wait), signal);
      }
    }
  }

  /** After silence: renews the lease, and begins to watch for the end of the stream. */
  #lookLater(): void {
    const { watch } = this.host;
    const renewMs = this.leaseSeconds * 1000 * RENEW_AFTER;
    const renewAfterMs = watch.isOpen ? renewMs : Math.min(renewMs, BLIND_RENEW_MS);
    const silentMs = Date.now() - this.#lastWordAt;
    const waitMs = Math.max(QUIET_MS, this.#isWatched ? renewAfterMs - silentMs : 0);
    this.#timer = setTimeout(() => this.#look(renewAfterMs), waitMs);
    (this.#timer as { unref?(): void }).unref?.(); // a process may end with a stream that nobody finished
  }

  #look(renewAfterMs: number): void {
    const silentMs = Date.now() - this.#lastWordAt;
    if (!this.#isWatched && silentMs >= QUIET_MS) {
      this.#isWatched = true;
      this.host.watch.join(this);
    }
    if (silentMs >= renewAfterMs) this.check();
    if (!this.#hasLeft) this.#lookLater();
  }

  /** Returns a promise that resolves when `isDue`. */
  #when(isDue: () => boolean): Promise<void> {
    if (isDue()) return Promise.resolve();
    return handled(new Promise((resolve, reject) => this.#waiting.push({ isDue, resolve, reject })));
  }

  #tell(): void {
    this.#waiting = this.#waiting.filter((waiting) => {
      const isDue = waiting.isDue();
      if (isDue) waiting.resolve();
      return !isDue;
    });
  }

  /** Whether the stream itself is over for this writer. */
  #isOver(error: NervewireError | undefined): error is NervewireError {
    return error instanceof StreamStateError || error?.status === 404 || error?.code === 'CLOSED';
  }

  /** Notes an error that ends the work of this writer. */
  #noted(error: NervewireError): NervewireError {
    if (this.#isOver(error)) {
      this.#lost(error);
      this.#leave();
    }
    return error;
  }

  /** Nothing can be appended any more. The first reason counts, unless the stream itself is over. */
  #lost(error: NervewireError): void {
    if (this.#error && !(this.#isOver(error) && !this.#isOver(this.#error))) return;
    this.#error = error;
    this.#outbox.discard();
    this.#useless.abort(error);
    this.#controller?.error(error);
    this.#waiting.splice(0).forEach(({ reject }) => reject(error));
  }

  #leave(): void {
    this.#hasLeft = true;
    clearTimeout(this.#timer);
    this.host.watch.leave(this);
    this.host.left(this);
  }

  #ended(): StreamStateError {
    return new StreamStateError('STREAM_ENDED', 'this writer has ended the stream');
  }
}

/** Marks a promise as handled: a caller that does not await it learns of the error from `finish`. */
function handled<T>(promise: Promise<T>): Promise<T> {
  promise.catch(() => {});
  return promise;
}

/**
 * Opens a stream. If the answer is lost, the stream may be open without anybody knowing its token: it is taken
 * over then.
 */
export async function openStream(host: WriterHost, options: OpenStreamOptions): Promise<StreamWriter> {
  const { requestId = `stream-${freshKey()}`, agentId, userId, metadata, leaseSeconds, agentStatus } = options;
  const stream = { request_id: requestId, agent_id: agentId, user_id: userId, metadata };
  const body = { ...stream, lease_seconds: leaseSeconds, agent_status: agentStatus };
  const backoff = host.backoff();
  let takeover = options.takeover;
  for (let tries = 1; ; tries += 1) {
    try {
      const answer = await host.http.call('POST', '/streams', { body: { ...body, takeover } });
      return new StreamWriter(host, dataOf<OpenedStream>(answer));
    } catch (thrown) {
      const error = asError(thrown);
      const wait = tries < REQUEST_TRIES ? repeatAfterMs(error) : undefined;
      if (wait === undefined || wait > RETRY_AFTER_MOST_MS) throw error;
      if (isAnswerLost(error)) takeover = true;
      await sleep(backoff.next(wait), new AbortController().signal);
    }
  }
}

/** Whether the daemon may have done what was requested. */
function isAnswerLost({ status, code }: NervewireError): boolean {
  return status === undefined || code === 'NOT_NERVEWIRE';
}

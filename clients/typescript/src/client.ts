/**
 * The client: one daemon, one credential, any number of subscriptions, streams, publishing, and the resources.
 *
 * - The client opens no connection by itself: a connection belongs to a subscription, to the reader of a
 *   stream, or to the writers of streams together. `close` ends them all.
 */
import { Backoff } from './backoff.js';
import { Credential, type GetToken } from './credential.js';
import { NervewireError } from './errors.js';
import type { EventOf, EventType, NewEvent } from './events.js';
import { positionOf, queryOf, type Filter, type Start } from './filter.js';
import { baseOf, freshKey, Http, REQUEST_TIMEOUT_MS, type Answer, type Call } from './http.js';
import type { TransportName } from './ladder.js';
import { dataOf, queried } from './collection.js';
import { List, type ListOptions } from './pages.js';
import type { Host } from './reconnect.js';
import { Resources } from './resources.js';
import { StreamReader, type ReadStreamOptions } from './streams/reader.js';
import type { PartsWanted, StreamInfo, StreamState, StreamWithText } from './streams/shapes.js';
import { EndWatch } from './streams/watch.js';
import { openStream, type OpenStreamOptions, type StreamWriter, type WriterHost } from './streams/writer.js';
import { StreamText, type TextState } from './text.js';
import { Subscription, type Callbacks, type Item } from './subscription.js';
import { TIMING, type Timing, type WebSocketConstructor } from './transports/session.js';
import { ticketIn } from './transports/ws.js';

export interface Options {
  /** The address of the daemon, such as `https://events.example.com`, without `/api/v1`. */
  url: string;
  /** A JWT that does not change. */
  token?: string;
  apiKey?: string;
  /** Returns a token. Called at the start, before the current token expires, and when it was refused. */
  getToken?: GetToken;
  /** `auto` uses WebSocket, or else SSE, or else long-poll. */
  transport?: 'auto' | TransportName;
  fetch?: typeof globalThis.fetch;
  /** Node 20 has no WebSocket: pass the one of npm `ws`, or `auto` starts with SSE. */
  WebSocket?: WebSocketConstructor;
  requestTimeoutMs?: number;
  /** Waits between attempts. */
  backoff?: { leastMs?: number; mostMs?: number };
  timing?: Partial<Timing> & {
    /** Time on a lesser transport after which `auto` tries the best one again. */
    climbAfterMs?: number;
  };
}

export interface SubscribeOptions<K extends EventType = EventType> extends Filter<K>, Start, Callbacks<EventOf<K>> {
  signal?: AbortSignal | undefined;
  /** Events kept for a consumer that is behind; 1,024 by default. */
  buffer?: number | undefined;
  /** Iterates over `Item`s: events, gaps, and the end of the requested history. */
  control?: boolean | undefined;
}

export interface PublishOptions {
  /** `memory`: do not wait for the disk. */
  ack?: 'durable' | 'memory';
  /**
   * Requests with the same key are published once. By default each publish has a new key, so that it can be
   * repeated if the response is lost. With `false` there is no key and no second attempt.
   */
  idempotencyKey?: string | false;
  signal?: AbortSignal;
}

export interface StreamFilter {
  state?: StreamState | undefined;
  agentId?: string | undefined;
  userId?: string | undefined;
}

export interface GetStreamOptions {
  /** `false`: without the text. */
  text?: boolean | undefined;
  /** Where the text begins, bytes of UTF-8. */
  offset?: number | undefined;
  /** `all`: also `parts`. */
  parts?: PartsWanted | undefined;
  /** How long to wait for a change, 0 to 60 seconds. Needs `known`. */
  wait?: number | undefined;
  /** The `next_index` that you know: the response comes when there is more, or when the stream has ended. */
  known?: number | undefined;
  signal?: AbortSignal | undefined;
}

/** Streams are read over SSE first: it takes one request to the first text, where a WebSocket takes three. */
const STREAM_STEPS: readonly TransportName[] = ['sse', 'ws', 'poll'];

const STEPS: Record<'auto' | TransportName, readonly TransportName[]> = {
  auto: ['ws', 'sse', 'poll'],
  ws: ['ws'],
  sse: ['sse'],
  poll: ['poll'],
};

export class Nervewire extends Resources {
  readonly #host: Host;
  readonly #streamHost: Host;
  readonly #writerHost: WriterHost;
  /** Subscriptions, readers and writers that are open. */
  readonly #open = new Set<{ close(): void }>();

  constructor(options: Options) {
    const { transport = 'auto', timing = {}, backoff = {} } = options;
    const { climbAfterMs, ...times } = timing;
    const WebSocket = options.WebSocket ?? (globalThis as { WebSocket?: WebSocketConstructor }).WebSocket;
    if (!Object.hasOwn(STEPS, transport))
      throw new TypeError(`transport: must be one of ${Object.keys(STEPS).join(', ')}, not ${JSON.stringify(transport)}`);
    if (transport === 'ws' && !WebSocket) throw new TypeError('this runtime has no WebSocket: pass one as the option WebSocket');
    const makeBackoff = () => new Backoff(backoff.leastMs, backoff.mostMs);
    const fetch: typeof globalThis.fetch = options.fetch ?? ((...request) => globalThis.fetch(...request));
    const timeout = options.requestTimeoutMs ?? REQUEST_TIMEOUT_MS;
    const http = new Http(baseOf(options.url), Credential.of(options), fetch, timeout, makeBackoff);
    super(http);
    this.#host = {
      http,
      WebSocket,
      steps: STEPS[transport].filter((step) => step !== 'ws' || WebSocket),
      timing: { ...TIMING, ...times },
      climbAfterMs,
      backoff: makeBackoff,
      left: (reader) => this.#open.delete(reader),
    };
    this.#streamHost = { ...this.#host, steps: STREAM_STEPS.filter((step) => this.#host.steps.includes(step)) };
    const watch = new EndWatch((handlers) => this.subscribe({ types: ['error'], ...handlers }));
    this.#writerHost = { http, backoff: makeBackoff, watch, left: (writer) => this.#open.delete(writer) };
  }

  /**
   * Follows events from now on, or from `lastEventId`, `since` or `earliest`, across connection losses, each
   * exactly once and in order. Iterate over it with `for await`, or pass callbacks.
   */
  subscribe<K extends EventType = EventType>(
    options: SubscribeOptions<K> & { control: true },
  ): Subscription<Item<EventOf<K>>, EventOf<K>>;
  subscribe<K extends EventType = EventType>(options?: SubscribeOptions<K>): Subscription<EventOf<K>, EventOf<K>>;
  subscribe<K extends EventType = EventType>(options: SubscribeOptions<K> = {}): Subscription<unknown, EventOf<K>> {
    const { signal, buffer, control = false, onEvent, onGap, onCaughtUp, onStatus, onError } = options;
    if (buffer !== undefined && !(buffer >= 1)) throw new RangeError('buffer: must be at least 1');
    const subscription = new Subscription<unknown, EventOf<K>>(this.#host, {
      filter: queryOf(options),
      position: positionOf(options),
      control,
      buffer,
      signal,
      ...{ onEvent, onGap, onCaughtUp, onStatus, onError },
    });
    if (subscription.status.state !== 'closed') this.#open.add(subscription);
    return subscription;
  }

  /**
   * Yields the text of `stream_chunk` events that were published without a stream, chunk by chunk, to the final
   * one. It starts with the first chunk unless a start is given. Throws if an `error` ends them. For streams use
   * `readStream`.
   */
  async *stream(requestId: string, options: Start & { signal?: AbortSignal } = {}): AsyncGenerator<string, TextState, undefined> {
    const { signal, lastEventId, since, earliest = true } = options;
    const stream = new StreamText(requestId);
    const request = { types: ['stream_chunk', 'error'] as const, requestId, lastEventId, since, earliest, signal };
    for await (const event of this.subscribe<'stream_chunk' | 'error'>(request)) {
      const delta = stream.push(event);
      if (delta) yield delta;
      const { done, error } = stream.state;
      if (error) throw new NervewireError(error.code, error.message);
      if (done) break;
    }
    return stream.state;
  }

  /** Publishes one event or several, all or none. Returns their ids when they are on disk. */
  async publish(events: NewEvent | readonly NewEvent[], options: PublishOptions = {}): Promise<string[]> {
    const { ack, idempotencyKey = freshKey(), signal } = options;
    const call: Call = { body: events, signal, idempotencyKey: idempotencyKey === false ? undefined : idempotencyKey };
    if (ack) call.query = { ack };
    const { body } = await this.http.call('POST', '/events', call);
    return (body as { data: { ids: string[] } }).data.ids;
  }

  /** Opens a stream for the text of a language model. The writer appends to it and ends it. */
  async openStream(options: OpenStreamOptions = {}): Promise<StreamWriter> {
    const writer = await openStream(this.#writerHost, options);
    this.#open.add(writer);
    return writer;
  }

  /**
   * Reads a stream from its first chunk to its end, also if it is opened only within the next minute. Iterate
   * over it with `for await`, or call `text()`; `finished` tells how it ended.
   */
  readStream(requestId: string, options: ReadStreamOptions = {}): StreamReader {
    const reader = new StreamReader(this.#streamHost, requestId, options);
    if (reader.status.state !== 'closed') this.#open.add(reader);
    return reader;
  }

  /** Shows a stream and its text so far. */
  async getStream(requestId: string, { signal, ...query }: GetStreamOptions = {}): Promise<StreamWithText> {
    const call: Call = { query: { ...query }, signal };
    if (query.wait !== undefined) call.timeoutMs = query.wait * 1000 + REQUEST_TIMEOUT_MS;
    return dataOf(await this.http.call('GET', streamPath(requestId), call));
  }

  /** Lists streams, newest first, without their text. */
  listStreams(options: Omit<ListOptions, 'order'> & StreamFilter = {}): List<StreamInfo> {
    const { limit, cursor, signal, ...filter } = options;
    return new List(this.http, '/streams', queried(filter), { limit, cursor, signal });
  }

  /**
   * Cancels a stream. Its user may do it, and `publish:org` and `manage`. The producer's `signal` is aborted.
   * Cancelling again changes nothing. Throws a `StreamStateError` if the stream has ended otherwise.
   */
  async cancelStream(
    requestId: string,
    { reason, signal }: { reason?: string | undefined; signal?: AbortSignal | undefined } = {},
  ): Promise<StreamInfo> {
    const call: Call = { body: reason === undefined ? {} : { reason }, signal, isRepeatable: true };
    return dataOf(await this.http.call('POST', `${streamPath(requestId)}/cancel`, call));
  }

  /** Removes the text of a stream that has ended. Its state stays. */
  async deleteStream(requestId: string, { signal }: { signal?: AbortSignal | undefined } = {}): Promise<void> {
    await this.http.call('DELETE', streamPath(requestId), { signal, isRepeatable: true });
  }

  /**
   * Creates a ticket for a URL: for one WebSocket, or with `reconnect` for `EventSource` and polling during
   * an hour. Subscriptions create their own.
   */
  async ticket(options: { reconnect?: boolean } = {}): Promise<string> {
    return ticketIn((await this.http.call('POST', '/tickets', { body: { reconnect: options.reconnect ?? false } })).body);
  }

  /** Sends any request below `/api/v1`, with this client's credential, errors and retries. */
  request(method: string, path: string, call: Call = {}): Promise<Answer> {
    return this.http.call(method, path, call);
  }

  /** Ends every subscription, and stops every reader and writer. */
  close(): void {
    for (const one of [...this.#open]) one.close();
  }
}

function streamPath(requestId: string): string {
  return `/streams/${encodeURIComponent(requestId)}`;
}

/**
 * The client: one daemon, one credential, any number of subscriptions, publishing, and the resources.
 *
 * - The client opens no connection by itself: a connection belongs to a subscription. `close` ends them all.
 */
import { Backoff } from './backoff.js';
import { Credential, type GetToken } from './credential.js';
import { NervewireError } from './errors.js';
import type { EventOf, EventType, NewEvent } from './events.js';
import { positionOf, queryOf, type Filter, type Start } from './filter.js';
import { baseOf, freshKey, Http, REQUEST_TIMEOUT_MS, type Answer, type Call } from './http.js';
import type { TransportName } from './ladder.js';
import { Resources } from './resources.js';
import { StreamText, type TextState } from './text.js';
import { Subscription, type Callbacks, type Host, type Item } from './subscription.js';
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

const STEPS: Record<'auto' | TransportName, readonly TransportName[]> = {
  auto: ['ws', 'sse', 'poll'],
  ws: ['ws'],
  sse: ['sse'],
  poll: ['poll'],
};

export class Nervewire extends Resources {
  readonly #host: Host;
  readonly #subscriptions = new Set<{ close(): void }>();

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
      left: (subscription) => this.#subscriptions.delete(subscription as { close(): void }),
    };
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
    if (subscription.status.state !== 'closed') this.#subscriptions.add(subscription);
    return subscription;
  }

  /**
   * Yields the text of one stream, chunk by chunk, to its end. It starts with the first chunk unless a start
   * is given. Throws if the stream ended with an error.
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

  /** Requests the cancellation of a stream. */
  async cancel(requestId: string): Promise<void> {
    await this.http.call('POST', `/streams/${encodeURIComponent(requestId)}/cancel`);
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

  /** Ends every subscription. */
  close(): void {
    for (const subscription of [...this.#subscriptions]) subscription.close();
  }
}

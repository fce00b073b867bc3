/**
 * A subscription: one session after another over any transport that works, delivered to its consumer as one
 * sequence.
 *
 * - `#received` is the start of the next session. It moves with every event that was taken over, and with
 *   nothing that the consumer could still miss. `cursor` is what the consumer has received, so it can be
 *   stored and used later.
 * - A session is ended before the next one starts, and its later output is ignored. So each event arrives
 *   exactly once.
 */
import { Backoff, sleep } from './backoff.js';
import { asError, NervewireError } from './errors.js';
import type { GapFrame, NervewireEvent } from './events.js';
import type { Http } from './http.js';
import { Ladder, SHORT_MS, type TransportName } from './ladder.js';
import { Queue } from './queue.js';
import { overPoll, POLL_LIMIT } from './transports/poll.js';
import type { Ended, Position, Run, Sink, Timing, WebSocketConstructor } from './transports/session.js';
import { overSse } from './transports/sse.js';
import { overWebSocket } from './transports/ws.js';

/**
 * Credentials refused in a row before a subscription gives up: if a new one is refused as well, `getToken`
 * returns invalid ones.
 */
export const REFUSED_MOST = 2;

/** The state of a subscription. `waiting` is between two attempts. */
export type Status =
  | { state: 'connecting'; transport: TransportName; attempt: number }
  | { state: 'open'; transport: TransportName; resumed: boolean }
  | { state: 'waiting'; transport: TransportName; retryInMs: number; error: NervewireError }
  | { state: 'behind'; transport: TransportName }
  | { state: 'closed'; error?: NervewireError };

/** Items of a subscription for consumers that need more than events (option `control`). */
export type Item<E extends NervewireEvent = NervewireEvent> =
  | { kind: 'event'; event: E; cursor: string }
  /** Events are missing here: fetch the state you need again, then continue. */
  | { kind: 'gap'; gap: GapFrame; cursor: string }
  /** The requested history is complete. */
  | { kind: 'caught_up'; cursor: string };

export interface Callbacks<E extends NervewireEvent = NervewireEvent> {
  onEvent?: ((event: E) => void) | undefined;
  onGap?: ((gap: GapFrame) => void) | undefined;
  onCaughtUp?: ((cursor: string) => void) | undefined;
  onStatus?: ((status: Status) => void) | undefined;
  /** The subscription has ended, or one of your callbacks threw (then it continues). */
  onError?: ((error: unknown) => void) | undefined;
}

export interface Host {
  http: Http;
  WebSocket: WebSocketConstructor | undefined;
  steps: readonly TransportName[];
  timing: Timing;
  climbAfterMs: number | undefined;
  backoff: () => Backoff;
  /** Called when it has ended. */
  left(subscription: object): void;
}

export interface SubscriptionRequest<E extends NervewireEvent> extends Callbacks<E> {
  filter: URLSearchParams;
  position: Position;
  control: boolean;
  buffer: number | undefined;
  signal: AbortSignal | undefined;
}

interface Settle {
  resolve(): void;
  reject(error: NervewireError): void;
}

const RUN: Record<TransportName, Run> = { ws: overWebSocket, sse: overSse, poll: overPoll };

export class Subscription<T, E extends NervewireEvent = NervewireEvent> implements AsyncIterableIterator<T, undefined> {
  /** Resolves when the subscription is ready for the first time. Rejects if that never happens. */
  readonly ready: Promise<void>;
  readonly #queue: Queue<Item<E>>;
  /** Whether a consumer iterates; true from the start if there is no `onEvent`. */
  #isQueued: boolean;
  readonly #closing = new AbortController();
  #status: Status;
  readonly #pace = { pollLimit: POLL_LIMIT };
  #received: Position;
  #delivered: string | undefined;
  readonly #settleReady: Settle;
  readonly #outerAborted = () => this.close();

  constructor(
    private readonly host: Host,
    private readonly request: SubscriptionRequest<E>,
  ) {
    this.#queue = new Queue(request.buffer);
    this.#isQueued = !request.onEvent;
    this.#received = request.position;
    this.#delivered = request.position.cursor;
    this.#status = { state: 'connecting', transport: host.steps[0] ?? 'poll', attempt: 1 };
    let settle: Settle = { resolve() {}, reject() {} };
    this.ready = new Promise<void>((resolve, reject) => (settle = { resolve, reject }));
    this.#settleReady = settle;
    this.ready.catch(() => {}); // without a reader of `ready`, onError and the iterator report the error
    request.signal?.addEventListener('abort', this.#outerAborted);
    if (request.signal?.aborted) this.close();
    else queueMicrotask(() => void this.#live()); // no callback runs before `subscribe` has returned
  }

  get status(): Status {
    return this.#status;
  }

  /**
   * The position after the last delivered event. Pass it as `lastEventId` to continue there, on any
   * transport, in any process.
   */
  get cursor(): string | undefined {
    return this.#delivered;
  }

  /** Ends the subscription. Received events that were not taken are dropped; `cursor` is before them. */
  close(): void {
    if (this.#status.state === 'closed') return;
    this.#over(undefined);
  }

  async next(): Promise<IteratorResult<T, undefined>> {
    this.#isQueued = true;
    for (;;) {
      let item = this.#queue.take();
      if (item) this.#delivered = item.cursor;
      else {
        const result = await this.#queue.next();
        if (result.done) return result;
        item = result.value;
      }
      if (this.request.control) return { done: false, value: item as T };
      if (item.kind === 'event') return { done: false, value: item.event as unknown as T };
    }
  }

  /** `break` in a `for await` closes the subscription. */
  return(): Promise<IteratorResult<T, undefined>> {
    this.close();
    return Promise.resolve({ done: true, value: undefined });
  }

  [Symbol.asyncIterator](): this {
    this.#isQueued = true;
    return this;
  }

  async #live(): Promise<void> {
    const { host } = this;
    const ladder = new Ladder(host.steps, host.climbAfterMs);
    const backoff = host.backoff();
    let refused = 0;
    let reached: string | undefined;
    while (!this.#closing.signal.aborted) {
      const transport = ladder.begin(Date.now());
      this.#report({ state: 'connecting', transport, attempt: backoff.failures + 1 });
      const began = Date.now();
      const { ended, isReady } = await this.#attempt(transport, ladder.climbAt);
      if (this.#closing.signal.aborted) return;
      const livedMs = Date.now() - began;
      if (isReady) refused = 0;
      // A connection without progress makes the next wait longer, so that a daemon that accepts and closes at
      // once is not flooded.
      if (isReady && (this.#received.cursor !== reached || livedMs >= SHORT_MS)) backoff.reset();
      reached = this.#received.cursor;
      const { verdict, error } = ended;
      if (verdict === 'again') {
        await this.#caughtUp(transport);
        continue;
      }
      if (verdict === 'stop') return this.#over(error);
      if (verdict === 'renew') {
        refused += 1;
        if (!host.http.credential.renewable || refused >= REFUSED_MOST) return this.#over(error);
        if (backoff.failures === 0) {
          backoff.next(); // at once, but only one time
          continue;
        }
      }
      const now = Date.now();
      const fell =
        verdict === 'fall'
          ? ladder.fall(now)
          : ladder.ended({ ready: isReady, livedMs, heldBack: ended.heldBack ?? false, neutral: isNeutral(ended) }, now);
      if (fell) continue;
      const retryInMs = backoff.next(ended.afterMs);
      this.#report({ state: 'waiting', transport, retryInMs, error });
      await sleep(retryInMs, this.#closing.signal);
    }
  }

  /** Waits until the consumer has taken half of the received events. */
  #caughtUp(transport: TransportName): Promise<void> {
    if (this.#queue.room < this.#queue.limit / 2) this.#report({ state: 'behind', transport });
    return this.#queue.drained();
  }

  /** Runs one session. It has its own abort signal. */
  async #attempt(transport: TransportName, until: number): Promise<{ ended: Ended; isReady: boolean }> {
    const { http, WebSocket, timing } = this.host;
    const end = new AbortController();
    const closed = () => end.abort();
    this.#closing.signal.addEventListener('abort', closed);
    let isReady = false;
    const sink = this.#sink(end.signal, (cursor, resumed) => {
      isReady = true;
      if (cursor !== undefined) this.#moved(cursor);
      this.#report({ state: 'open', transport, resumed });
      this.#settleReady.resolve();
    });
    try {
      const token = await http.credential.current();
      const position = this.#received;
      const session = {
        http,
        WebSocket,
        token,
        filter: this.request.filter,
        position,
        sink,
        signal: end.signal,
        timing,
        until,
        pace: this.#pace,
      };
      const ended = await RUN[transport](session);
      if (ended.verdict === 'renew') http.credential.refused(session.token);
      return { ended, isReady };
    } catch (thrown) {
      // getToken failed, or this client has a defect: in both cases it is retried and reported.
      return { ended: { verdict: 'reconnect', error: asError(thrown), neutral: true }, isReady };
    } finally {
      this.#closing.signal.removeEventListener('abort', closed);
      end.abort();
    }
  }

  #sink(session: AbortSignal, opened: Sink['opened']): Sink {
    const live =
      <A extends unknown[]>(call: (...values: A) => void) =>
      (...values: A) => {
        if (!session.aborted) call(...values);
      };
    const { onEvent, onGap, onCaughtUp } = this.request;
    return {
      opened: live(opened),
      event: live((event) => {
        // The filter requested only these types.
        this.#hand({ kind: 'event', event: event as E, cursor: event.id }, () => onEvent?.(event as E));
      }),
      gap: live((gap) => this.#hand({ kind: 'gap', gap, cursor: gap.resumes_at }, () => onGap?.(gap))),
      caughtUp: live((cursor) => this.#hand({ kind: 'caught_up', cursor }, () => onCaughtUp?.(cursor))),
      cursor: live((cursor) => this.#moved(cursor)),
      room: () => (this.#isQueued ? this.#queue.room : this.#queue.limit),
      drained: () => this.#queue.drained(),
    };
  }

  #hand(item: Item<E>, call: () => void): void {
    this.#received = { cursor: item.cursor };
    if (!this.#isQueued || this.#queue.push(item)) this.#delivered = item.cursor;
    this.#guard(call);
  }

  /** The position moved without an event. The consumer sees it only after the events before it. */
  #moved(cursor: string): void {
    this.#received = { cursor };
    if (!this.#isQueued || this.#queue.size === 0) this.#delivered = cursor;
  }

  #report(status: Status): void {
    if (this.#status.state === 'closed') return;
    this.#status = status;
    this.#guard(() => this.request.onStatus?.(status));
  }

  #guard(call: () => void): void {
    try {
      call();
    } catch (thrown) {
      this.request.onError?.(thrown);
    }
  }

  #over(error: NervewireError | undefined): void {
    this.#report(error ? { state: 'closed', error } : { state: 'closed' });
    this.#closing.abort();
    this.request.signal?.removeEventListener('abort', this.#outerAborted);
    if (error) this.#queue.end(error);
    else this.#queue.discard();
    this.#settleReady.reject(error ?? new NervewireError('CLOSED', 'the subscription was closed'));
    this.host.left(this);
    if (error) this.request.onError?.(error);
  }
}

/** An end that the daemon announced proves nothing about the transport; a loss does. */
function isNeutral(ended: Ended): boolean {
  return ended.neutral ?? !['NETWORK', 'TIMEOUT', 'NOT_NERVEWIRE'].includes(ended.error.code);
}

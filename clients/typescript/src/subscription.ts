/**
 * A subscription: one session after another over any transport that works, delivered to its consumer as one
 * sequence.
 *
 * - `#received` is the start of the next session. It moves with every event that was taken over, and with
 *   nothing that the consumer could still miss. `cursor` is what the consumer has received, so it can be
 *   stored and used later.
 * - A session is ended before the next one starts, and its later output is ignored (`reconnect.ts`). So each
 *   event arrives exactly once.
 */
import { NervewireError } from './errors.js';
import type { GapFrame, NervewireEvent } from './events.js';
import type { TransportName } from './ladder.js';
import { Queue } from './queue.js';
import { keepReading, type Host, type Reader, type Status } from './reconnect.js';
import { overPoll } from './transports/poll.js';
import type { Position, Sink } from './transports/session.js';
import { overSse } from './transports/sse.js';
import { overWebSocket } from './transports/ws.js';

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

const RUN = { ws: overWebSocket, sse: overSse, poll: overPoll };

export class Subscription<T, E extends NervewireEvent = NervewireEvent> implements AsyncIterableIterator<T, undefined> {
  /** Resolves when the subscription is ready for the first time. Rejects if that never happens. */
  readonly ready: Promise<void>;
  readonly #queue: Queue<Item<E>>;
  /** Whether a consumer iterates; true from the start if there is no `onEvent`. */
  #isQueued: boolean;
  readonly #closing = new AbortController();
  #status: Status;
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
    else queueMicrotask(() => void this.#read()); // no callback runs before `subscribe` has returned
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

  async #read(): Promise<void> {
    const reader: Reader = {
      closing: this.#closing.signal,
      filter: this.request.filter,
      run: RUN,
      position: () => this.#received,
      reached: () => this.#received.cursor,
      sink: (end) => this.#sink(end.signal),
      opened: (cursor) => {
        if (cursor !== undefined) this.#moved(cursor);
      },
      report: (status) => {
        this.#report(status);
        if (status.state === 'open') this.#settleReady.resolve();
      },
      caughtUp: (transport) => this.#caughtUp(transport),
    };
    const end = await keepReading(this.host, reader);
    if (end) this.#over(end.error);
  }

  /** Waits until the consumer has taken half of the received events. */
  #caughtUp(transport: TransportName): Promise<void> {
    if (this.#queue.room < this.#queue.limit / 2) this.#report({ state: 'behind', transport });
    return this.#queue.drained();
  }

  #sink(session: AbortSignal): Omit<Sink, 'opened'> {
    const live =
      <A extends unknown[]>(call: (...values: A) => void) =>
      (...values: A) => {
        if (!session.aborted) call(...values);
      };
    const { onEvent, onGap, onCaughtUp } = this.request;
    return {
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

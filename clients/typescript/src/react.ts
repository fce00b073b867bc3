/**
 * React hooks: a client in a provider, `useNervewire` for events, `useStream` for the text of one stream.
 *
 * - A subscription belongs to a mounted component: an effect creates it and the clean-up closes it, so one is
 *   left after StrictMode's second mount. The data kept for rendering is bounded.
 * - Updates are batched: everything that arrives in one turn of the event loop is one change.
 */
import { createContext, createElement, useContext, useEffect, useMemo, useSyncExternalStore, type ReactNode } from 'react';
import { asError, type NervewireError } from './errors.js';
import type { Nervewire, SubscribeOptions } from './client.js';
import type { EventOf, EventType, GapFrame, NervewireEvent } from './events.js';
import { queryOf, type Filter, type Start } from './filter.js';
import type { Status } from './subscription.js';
import { StreamText, type TextState } from './text.js';

/** Events that `useNervewire` keeps by default. */
export const KEEP = 100;

const Context = createContext<Nervewire | undefined>(undefined);

/**
 * Provides the client for the hooks below it. Create the client outside of rendering, or in `useState`, so
 * that there is only one.
 */
export function NervewireProvider({ client, children }: { client: Nervewire; children?: ReactNode }): ReactNode {
  return createElement(Context.Provider, { value: client }, children);
}

/** The client of the provider. */
export function useClient(): Nervewire {
  const client = useContext(Context);
  if (!client) throw new Error('there is no <NervewireProvider client={…}> around this component');
  return client;
}

export interface Feed<E extends NervewireEvent> {
  client: Nervewire;
  status: Status;
  /** The latest events, oldest first. */
  events: readonly E[];
  /** The last gap, if there was one: fetch the state you need again. */
  gap: GapFrame | undefined;
  /** The error that ended it, if it has ended. */
  error: NervewireError | undefined;
  /** Removes the kept events. */
  clear(): void;
}

export interface FeedOptions<K extends EventType> extends Filter<K>, Start {
  /** How many of the latest events are kept; 100 by default. */
  keep?: number;
  /**
   * Called for every event, also for those that are not kept. The latest function is the one that is called.
   */
  onEvent?: (event: EventOf<K>) => void;
}

/** Follows events while the component is mounted, and starts again when the filter changes. */
export function useNervewire<K extends EventType = EventType>(options: FeedOptions<K> = {}): Feed<EventOf<K>> {
  const client = useClient();
  const { keep = KEEP, lastEventId, earliest } = options;
  const since = options.since instanceof Date ? options.since.toISOString() : options.since;
  // Equal filters count as the same filter, even if the object is new in every render.
  const key = JSON.stringify([queryOf(options as Filter).toString(), lastEventId, since, earliest, keep]);
  const store = useMemo(() => new FeedStore<EventOf<K>>(keep), [client, key]);
  useEffect(() => {
    store.onEvent = options.onEvent;
  });
  useEffect(() => {
    const request = options as SubscribeOptions<K>;
    return store.follow((handlers, cursor) =>
      client.subscribe<K>({ ...request, lastEventId: cursor ?? request.lastEventId, ...handlers }),
    );
  }, [store]);
  const state = useSyncExternalStore(store.listen, store.read, store.read);
  return useMemo(() => ({ client, ...state, clear: store.clear }), [client, state, store]);
}

/**
 * Returns the text of a stream as it grows; `undefined`: no stream yet. It starts with the first chunk unless
 * `start` says where to look. `since` with the time of the request is cheaper if many events are retained.
 * `start` is read when the stream begins to be followed.
 */
export function useStream(requestId: string | undefined, start: Start = {}): StreamView {
  const client = useClient();
  const store = useMemo(() => new StreamStore(requestId), [client, requestId]);
  useEffect(() => {
    if (requestId === undefined) return undefined;
    const request = { types: ['stream_chunk', 'error'] as const, requestId, earliest: true, ...start };
    return store.follow((handlers) => client.subscribe<'stream_chunk' | 'error'>({ ...request, ...handlers }));
  }, [store]);
  return useSyncExternalStore(store.listen, store.read, store.read);
}

export interface StreamView extends Omit<TextState, 'requestId' | 'error'> {
  /** The error of the stream or of the subscription. */
  error: { code: string; message: string } | undefined;
}

type Handlers<E extends NervewireEvent> = Pick<SubscribeOptions, 'onGap' | 'onStatus' | 'onError'> & { onEvent(event: E): void };

/** The part of a subscription that a store uses. */
interface Followed {
  readonly status: Status;
  readonly cursor: string | undefined;
  close(): void;
}

/** A value outside of React that announces its changes, at most once in a turn of the event loop. */
abstract class Store<S> {
  readonly #listeners = new Set<() => void>();
  #isTold = true;

  abstract read: () => S;

  readonly listen = (listener: () => void): (() => void) => {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  };

  protected changed(): void {
    if (!this.#isTold) return;
    this.#isTold = false;
    queueMicrotask(() => {
      this.#isTold = true;
      this.settle();
      this.#listeners.forEach((listener) => listener());
    });
  }

  /** Computes the value that `read` returns. */
  protected abstract settle(): void;
}

const CONNECTING: Status = { state: 'connecting', transport: 'ws', attempt: 1 };

type FeedState<E extends NervewireEvent> = Omit<Feed<E>, 'client' | 'clear'>;

class FeedStore<E extends NervewireEvent> extends Store<FeedState<E>> {
  onEvent: ((event: E) => void) | undefined;
  #kept: E[] = [];
  #cursor: string | undefined;
  #next: FeedState<E> = { status: CONNECTING, events: [], gap: undefined, error: undefined };
  #state = this.#next;

  constructor(private readonly keep: number) {
    super();
  }

  override read = (): FeedState<E> => this.#state;

  readonly clear = (): void => {
    this.#kept = [];
    this.changed();
  };

  /**
   * Subscribes. `subscribe` gets the position where an earlier mount ended, so nothing is missed in between.
   */
  follow(subscribe: (handlers: Handlers<E>, cursor: string | undefined) => Followed): () => void {
    this.#set({ status: CONNECTING, error: undefined });
    const handlers: Handlers<E> = {
      onStatus: (status) => this.#set(status.state === 'closed' ? { status, error: status.error } : { status }),
      onGap: (gap) => this.#set({ gap }),
      onError: (error) => {
        if (subscription.status.state === 'closed') return;
        queueMicrotask(() => {
          throw error; // thrown by the component, so it is not swallowed
        });
      },
      onEvent: (event) => {
        this.#kept.push(event);
        // Trims at twice the size, so that not every event moves all others.
        if (this.#kept.length > this.keep * 2) this.#kept = this.#kept.slice(-this.keep);
        this.changed();
        this.onEvent?.(event);
      },
    };
    const subscription = subscribe(handlers, this.#cursor);
    return () => {
      this.#cursor = subscription.cursor;
      subscription.close();
    };
  }

  #set(change: Partial<FeedState<E>>): void {
    this.#next = { ...this.#next, ...change };
    this.changed();
  }

  protected override settle(): void {
    const events = this.keep > 0 ? this.#kept.slice(-this.keep) : [];
    this.#state = this.#next = { ...this.#next, events };
  }
}

class StreamStore extends Store<StreamView> {
  #stream: StreamText;
  #failed: NervewireError | undefined;
  #state: StreamView = { text: '', done: false, error: undefined, incomplete: false };

  constructor(private readonly requestId: string | undefined) {
    super();
    this.#stream = new StreamText(requestId ?? '');
  }

  override read = (): StreamView => this.#state;

  follow(subscribe: (handlers: Handlers<EventOf<'stream_chunk' | 'error'>>) => Followed): () => void {
    if (this.#stream.state.done) return () => {}; // it was already read to its end
    this.#stream = new StreamText(this.requestId ?? '');
    this.#failed = undefined;
    const subscription = subscribe({
      onError: (error) => {
        this.#failed = asError(error);
        this.changed();
      },
      onEvent: (event) => {
        this.#stream.push(event);
        this.changed();
        if (this.#stream.state.done) subscription.close();
      },
    });
    return () => subscription.close();
  }

  protected override settle(): void {
    const { text, done, error, incomplete } = this.#stream.state;
    this.#state = { text, done, error: error ?? this.#failed, incomplete };
  }
}

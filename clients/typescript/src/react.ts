/**
 * React hooks: a client in a provider, `useNervewire` for events, `useStream` for one stream's text.
 *
 * - A subscription belongs to a mounted component: it begins in an effect and is closed by its clean-up, so StrictMode's second mount
 *   leaves one. What is kept for rendering is bounded.
 * - Renders are gathered: whatever comes in one turn of the event loop is one change.
 */
import { createContext, createElement, useContext, useEffect, useMemo, useSyncExternalStore, type ReactNode } from 'react';
import { asError, type NervewireError } from './errors.js';
import type { Nervewire, SubscribeOptions } from './client.js';
import type { EventOf, EventType, GapFrame, NervewireEvent } from './events.js';
import { queryOf, type Filter, type Start } from './filter.js';
import type { Status } from './subscription.js';
import { StreamText, type TextState } from './text.js';

/** Events that `useNervewire` keeps unless told otherwise. */
export const KEEP = 100;

const Context = createContext<Nervewire | undefined>(undefined);

/** Gives the hooks below it their client. Make the client outside of rendering, or in `useState`, so that there is one. */
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
  /** The last gap, if there was one: fetch the state you need anew. */
  gap: GapFrame | undefined;
  /** Why it is over, if it is. */
  error: NervewireError | undefined;
  /** Forgets the events kept. */
  clear(): void;
}

export interface FeedOptions<K extends EventType> extends Filter<K>, Start {
  /** How many events are kept, the latest: 100 unless said. */
  keep?: number;
  /** Called for every event, also those that are not kept. The latest function given is called. */
  onEvent?: (event: EventOf<K>) => void;
}

/** Follows events while the component is mounted, and anew when the filter changes. */
export function useNervewire<K extends EventType = EventType>(options: FeedOptions<K> = {}): Feed<EventOf<K>> {
  const client = useClient();
  const { keep = KEEP, lastEventId, earliest } = options;
  const since = options.since instanceof Date ? options.since.toISOString() : options.since;
  // Equal filters are one filter, however often the object is made anew.
  const key = JSON.stringify([queryOf(options as Filter).toString(), lastEventId, since, earliest, keep]);
  const store = useMemo(() => new FeedStore<EventOf<K>>(keep), [client, key]);
  useEffect(() => {
    store.onEvent = options.onEvent;
  });
  useEffect(() => {
    const asked = options as SubscribeOptions<K>;
    return store.follow((handlers, cursor) =>
      client.subscribe<K>({ ...asked, lastEventId: cursor ?? asked.lastEventId, ...handlers }),
    );
  }, [store]);
  const state = useSyncExternalStore(store.listen, store.read, store.read);
  return useMemo(() => ({ client, ...state, clear: store.clear }), [client, state, store]);
}

/**
 * The text of a stream as it grows. `undefined`: no stream yet. From its first chunk, unless `start` says where to look from: `since` the
 * request was made is cheaper where much is kept. `start` counts when the stream begins to be followed.
 */
export function useStream(requestId: string | undefined, start: Start = {}): StreamView {
  const client = useClient();
  const store = useMemo(() => new StreamStore(requestId), [client, requestId]);
  useEffect(() => {
    if (requestId === undefined) return undefined;
    const asked = { types: ['stream_chunk', 'error'] as const, requestId, earliest: true, ...start };
    return store.follow((handlers) => client.subscribe<'stream_chunk' | 'error'>({ ...asked, ...handlers }));
  }, [store]);
  return useSyncExternalStore(store.listen, store.read, store.read);
}

export interface StreamView extends Omit<TextState, 'requestId' | 'error'> {
  /** How the stream, or following it, failed. */
  error: { code: string; message: string } | undefined;
}

type Handlers<E extends NervewireEvent> = Pick<SubscribeOptions, 'onGap' | 'onStatus' | 'onError'> & { onEvent(event: E): void };

/** The part of a subscription that a store needs. */
interface Followed {
  readonly status: Status;
  readonly cursor: string | undefined;
  close(): void;
}

/** A value outside of React that says when it changed, at most once in a turn of the event loop. */
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

  /** Makes what `read` gives. */
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

  /** `subscribe` is given where an earlier mount left off: nothing is missed in between. */
  follow(subscribe: (handlers: Handlers<E>, cursor: string | undefined) => Followed): () => void {
    this.#set({ status: CONNECTING, error: undefined });
    const handlers: Handlers<E> = {
      onStatus: (status) => this.#set(status.state === 'closed' ? { status, error: status.error } : { status }),
      onGap: (gap) => this.#set({ gap }),
      onError: (error) => {
        if (subscription.status.state === 'closed') return;
        queueMicrotask(() => {
          throw error; // the component's own: not swallowed
        });
      },
      onEvent: (event) => {
        this.#kept.push(event);
        // Twice the room, so that not every event moves all others.
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
    if (this.#stream.state.done) return () => {}; // read to its end before
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

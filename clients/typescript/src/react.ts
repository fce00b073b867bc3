/**
 * React hooks: a client in a provider, `useNervewire` for events, `useStream` for the text of one stream.
 *
 * - What reads belongs to a mounted component: an effect creates it and the clean-up closes it, so one is left
 *   after StrictMode's second mount. The data kept for rendering is bounded.
 * - Updates are batched: everything that arrives in one turn of the event loop is one change.
 */
import { createContext, createElement, useContext, useEffect, useMemo, useSyncExternalStore, type ReactNode } from 'react';
import { asError, StreamStateError, type NervewireError } from './errors.js';
import type { Nervewire, SubscribeOptions } from './client.js';
import type { EventOf, EventType, GapFrame, NervewireEvent } from './events.js';
import { queryOf, type Filter, type Start } from './filter.js';
import type { Status } from './reconnect.js';
import { isText, keyOf, type StreamPiece } from './streams/progress.js';
import type { PartsWanted, StreamPart, StreamState } from './streams/shapes.js';

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

export interface UseStreamOptions {
  /** `text`: without reasoning, tool calls and other parts. */
  parts?: PartsWanted;
}

/** A part of an answer and its text so far. */
export interface PartText extends StreamPart {
  text: string;
}

export interface StreamView {
  /** The text so far, without other parts. It stays when the stream ends with an error. */
  text: string;
  /** The parts that chunks named, in order of their first chunk. */
  parts: readonly PartText[];
  /**
   * `idle`: there is no id. `connecting`: not read yet. `open`: more may come, also if the stream is not opened
   * yet. `unreadable`: the stream cannot be read, and `error` says why. Else how the stream ended.
   */
  state: 'idle' | 'connecting' | 'unreadable' | StreamState;
  /** Why the stream did not complete, or why it cannot be read. */
  error: { code: string; message: string } | undefined;
  finishReason: string | undefined;
  usage: Record<string, unknown> | undefined;
  /** Whether the stream has ended so long ago that its text is gone. */
  incomplete: boolean;
  /** Cancels the stream for everybody. Without an id, or if the stream has ended, it does nothing. */
  cancel(reason?: string): Promise<void>;
}

/**
 * Reads a stream while the component is mounted, always from its first chunk: after a refresh the whole text is
 * there again. Without an id it is idle.
 */
export function useStream(requestId: string | null | undefined, { parts = 'all' }: UseStreamOptions = {}): StreamView {
  const client = useClient();
  const store = useMemo(() => new StreamStore(client, requestId ?? undefined, parts), [client, requestId, parts]);
  useEffect(() => store.follow(), [store]);
  const state = useSyncExternalStore(store.listen, store.read, store.read);
  return useMemo(() => ({ ...state, cancel: store.cancel }), [state, store]);
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

type StreamStoreState = Omit<StreamView, 'cancel'>;

class StreamStore extends Store<StreamStoreState> {
  #text = '';
  #parts = new Map<string, PartText>();
  #next: Omit<StreamStoreState, 'text' | 'parts'>;
  #state: StreamStoreState;

  constructor(
    private readonly client: Nervewire,
    private readonly requestId: string | undefined,
    private readonly parts: PartsWanted,
  ) {
    super();
    const state = requestId === undefined ? 'idle' : 'connecting';
    this.#next = { state, error: undefined, finishReason: undefined, usage: undefined, incomplete: false };
    this.#state = { text: '', parts: [], ...this.#next };
  }

  override read = (): StreamStoreState => this.#state;

  readonly cancel = async (reason?: string): Promise<void> => {
    if (this.requestId === undefined) return;
    await this.client.cancelStream(this.requestId, { reason }).catch((error: unknown) => {
      if (!(error instanceof StreamStateError)) throw error; // it has just ended, as `state` shows
    });
  };

  /** Reads the stream from its start. An earlier mount has read it to its end, or its text is dropped. */
  follow(): () => void {
    if (this.requestId === undefined || this.#hasEnded) return () => {};
    const closing = new AbortController();
    void this.#follow(this.requestId, closing.signal);
    return () => closing.abort();
  }

  get #hasEnded(): boolean {
    return !['idle', 'connecting', 'open', 'unreadable'].includes(this.#next.state);
  }

  async #follow(requestId: string, signal: AbortSignal): Promise<void> {
    this.#clear();
    this.#set({ state: 'connecting', error: undefined });
    const onStatus = (status: Status) => {
      if (status.state === 'open') this.#set({ state: 'open' });
    };
    try {
      const reader = this.client.readStream(requestId, { parts: this.parts, signal, onStatus });
      for await (const piece of reader) {
        if (signal.aborted) return;
        this.#add(piece);
      }
      const end = await reader.finished;
      if (!signal.aborted) this.#set(end);
    } catch (thrown) {
      if (!signal.aborted) this.#set({ state: 'unreadable', error: asError(thrown) });
    }
  }

  #add({ text, part, reset }: StreamPiece): void {
    if (reset) this.#clear();
    if (isText(part)) this.#text += text;
    if (part) {
      const key = keyOf(part);
      const known = this.#parts.get(key);
      this.#parts.set(key, known ? { ...known, text: known.text + text } : { ...part, text });
    }
    this.changed();
  }

  #clear(): void {
    this.#text = '';
    this.#parts = new Map();
  }

  #set(change: Partial<StreamStoreState>): void {
    this.#next = { ...this.#next, ...change };
    this.changed();
  }

  protected override settle(): void {
    this.#state = { ...this.#next, text: this.#text, parts: [...this.#parts.values()] };
  }
}

/**
 * The common part of the three transports: one attempt from one position to its end. Each transport reports
 * the same things to the same sink and returns why it ended. None of them knows the others or the retry
 * policy.
 */
import type { NervewireEvent, GapFrame } from '../events.js';
import { asError, NervewireError } from '../errors.js';
import type { Http } from '../http.js';
import type { PartsWanted, StreamEndFrame, StreamWithText } from '../streams/shapes.js';
import type { End } from '../verdict.js';

/** The start position; empty: now. */
export interface Position {
  cursor?: string | undefined;
  since?: string | undefined;
  earliest?: boolean | undefined;
}

/** The receiver of a session's output. A session must not call it once its signal is aborted. */
export interface Sink {
  /** The subscription is ready; `cursor`, if known, is its start. */
  opened(cursor: string | undefined, resumed: boolean): void;
  event(event: NervewireEvent): void;
  gap(gap: GapFrame): void;
  /** The position moved without an event. */
  cursor(cursor: string): void;
  caughtUp(cursor: string): void;
  /** How many more events the sink accepts now. */
  room(): number;
  /** Resolves when there is room again. */
  drained(): Promise<void>;
}

/** A stream that is read, and the receiver of what only streams have. */
export interface StreamTarget {
  requestId: string;
  parts: PartsWanted;
  /** The stream has ended and everything before its end was delivered. */
  done(end: StreamEndFrame | undefined): void;
  /** How much text long-poll leaves out, bytes of UTF-8. */
  offset(): number;
  /** Receives the stream as `GET` shows it. */
  snapshot(stream: StreamWithText): void;
}

/** Times that tests and unusual networks change. */
export interface Timing {
  /**
   * Longest time until `ready`, milliseconds. If it takes longer, something in between delays the transport.
   */
  readyTimeoutMs: number;
  /** How long a poll waits at the daemon, seconds. */
  pollWaitSeconds: number;
}

/** Below the idle timeout of common proxies. */
export const TIMING: Timing = { readyTimeoutMs: 10_000, pollWaitSeconds: 25 };

/** Heartbeats that a peer may miss. */
export const SILENT_HEARTBEATS = 2;

export interface Session {
  http: Http;
  WebSocket: WebSocketConstructor | undefined;
  /** The token of this attempt. */
  token: string;
  filter: URLSearchParams;
  /** The stream that is read from its first chunk, instead of events from a position. */
  stream: StreamTarget | undefined;
  position: Position;
  sink: Sink;
  signal: AbortSignal;
  timing: Timing;
  /** When to end in order to try a better transport: milliseconds since 1970. */
  until: number;
  pace: Pace;
}

/** State that one session passes to the next. */
export interface Pace {
  /**
   * Events per poll. Halved when a response is lost, so that one gets through where connections are short.
   */
  pollLimit: number;
}

export type Run = (session: Session) => Promise<Ended>;

/**
 * `heldBack`: nothing arrived in time. `neutral`: the end proves nothing about the transport. See `Ladder`.
 */
export type Ended = End & { heldBack?: boolean; neutral?: boolean };

/** The part of a WebSocket that is used. Browsers, Node and npm `ws` have it. */
export interface WebSocketLike {
  readonly readyState: number;
  send(data: string): void;
  close(code?: number, reason?: string): void;
  onopen: ((event: never) => void) | null;
  onmessage: ((event: never) => void) | null;
  onerror: ((event: never) => void) | null;
  onclose: ((event: never) => void) | null;
}

export type WebSocketConstructor = new (url: string) => WebSocketLike;

/** Adds the position to the query parameters. */
export function positioned(filter: URLSearchParams, position: Position, cursorName: string | undefined): URLSearchParams {
  const query = new URLSearchParams(filter);
  if (position.cursor !== undefined) {
    if (cursorName) query.set(cursorName, position.cursor);
  } else if (position.since !== undefined) query.set('since', position.since);
  else if (position.earliest) query.set('earliest', 'true');
  return query;
}

export function lost(why: string, cause?: unknown): End {
  return { verdict: 'reconnect', error: cause === undefined ? new NervewireError('NETWORK', why) : asError(cause) };
}

/** An end that this client chose. */
export function again(why: string): End {
  return { verdict: 'again', error: new NervewireError('CLOSED', why) };
}

/** The end of a session that has delivered a whole stream. */
export function complete(): End {
  return { verdict: 'done', error: new NervewireError('CLOSED', 'the stream has ended') };
}

/**
 * What the three transports have in common: one attempt from one position to its end. Each tells the same sink the same things
 * and answers why it ended; none of them knows the others, nor when to try again.
 */
import type { NervewireEvent, GapFrame } from '../events.js';
import { asError, NervewireError } from '../errors.js';
import type { Http } from '../http.js';
import type { End } from '../verdict.js';

/** Where to start; nothing: now. */
export interface Position {
  cursor?: string | undefined;
  since?: string | undefined;
  earliest?: boolean | undefined;
}

/** Whom a session tells. Nothing may be told once the session's signal is aborted. */
export interface Sink {
  /** The subscription stands; `cursor`, if known, is where it begins. */
  opened(cursor: string | undefined, resumed: boolean): void;
  event(event: NervewireEvent): void;
  gap(gap: GapFrame): void;
  /** The position moved without an event. */
  cursor(cursor: string): void;
  caughtUp(cursor: string): void;
  /** How many events may be told now. */
  room(): number;
  /** Resolves when there is room again. */
  drained(): Promise<void>;
}

/** Times that tests and unusual networks change. */
export interface Timing {
  /** Longest until `ready`, milliseconds. A transport that takes longer is held back by something in between. */
  readyTimeoutMs: number;
  /** How long a poll waits at the daemon, seconds. */
  pollWaitSeconds: number;
}

/** Below what proxies cut as idle. */
export const TIMING: Timing = { readyTimeoutMs: 10_000, pollWaitSeconds: 25 };

/** A peer may be silent for so many of its heartbeats. */
export const SILENT_HEARTBEATS = 2;

export interface Session {
  http: Http;
  WebSocket: WebSocketConstructor | undefined;
  /** Of this attempt. */
  token: string;
  filter: URLSearchParams;
  position: Position;
  sink: Sink;
  signal: AbortSignal;
  timing: Timing;
  /** When to end, for a better transport is to be tried: milliseconds since 1970. */
  until: number;
  pace: Pace;
}

/** What one session learns for the next. */
export interface Pace {
  /** Events that a poll asks for: halved when an answer is lost, so that one gets through where connections live briefly. */
  pollLimit: number;
}

export type Run = (session: Session) => Promise<Ended>;

/** `heldBack`: nothing came in time; `neutral`: it says nothing about the transport. See `Ladder`. */
export type Ended = End & { heldBack?: boolean; neutral?: boolean };

/** The part of a WebSocket that is used; the browsers', Node's and npm `ws`'s have it. */
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

/** The position as query parameters. */
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

/** Ended by our own wish. */
export function again(why: string): End {
  return { verdict: 'again', error: new NervewireError('CLOSED', why) };
}

/**
 * Decides what to do when a connection has ended: the table of docs/protocol.md ("How a WebSocket ends", "SSE",
 * "Errors"). This is the only place that decides it. It has no sockets and no clock.
 * `clients/rust/tests/verdicts.json` has the same rows, and the Rust client follows them too.
 */
import { NervewireError } from './errors.js';

/**
 * - `again`: reconnect at once with the cursor, because this client chose to end
 * - `reconnect`: reconnect with the cursor after a random wait of at least `afterMs`
 * - `renew`: reconnect with a new credential
 * - `fall`: this transport does not work here, another one may
 * - `stop`: do not reconnect
 * - `done`: do not reconnect, because everything has arrived
 */
export type Verdict = 'again' | 'reconnect' | 'renew' | 'fall' | 'stop' | 'done';

export interface End {
  verdict: Verdict;
  error: NervewireError;
  /** Least wait, milliseconds. */
  afterMs?: number | undefined;
}

/**
 * The wait after a 1013, which has no time of its own. It is several times what the publish rate needs to
 * recover.
 */
export const LATER_MS = 5_000;
/**
 * The least wait after an error for lack of room without a time: 429, 502, 503, 504, and a stream closed for
 * it.
 */
export const BUSY_MS = 1_000;

const STOPS = new Set([1002, 1003, 1007, 1008, 1009, 1010, 4403]);
const CLOSING_STOPS = new Set(['FORBIDDEN', 'BAD_REQUEST', 'VALIDATION_ERROR', 'NOT_FOUND']);

/** The verdict for an open WebSocket that was closed. */
export function ofClose(code: number, reason: string): End {
  const error = (name: string, words: string) => new NervewireError(name, reason || words, { closeCode: code });
  if (STOPS.has(code)) {
    return { verdict: 'stop', error: error(code === 4403 ? 'FORBIDDEN' : 'BAD_REQUEST', `closed with ${code}`) };
  }
  switch (code) {
    case 4401:
      return { verdict: 'renew', error: error('UNAUTHORIZED', 'credential expired') };
    case 1013:
      return { verdict: 'reconnect', error: error('QUOTA_EXCEEDED', 'publish rate exceeded'), afterMs: LATER_MS };
    case 1011:
      return { verdict: 'reconnect', error: error('INTERNAL_ERROR', 'internal error') };
    case 1012:
    case 4408:
    case 4440:
      return { verdict: 'reconnect', error: error('UNAVAILABLE', `closed with ${code}`) };
    default:
      // 1006 and 1005: lost. The daemon itself never sends 1000 or 1001: something in between closed the
      // connection.
      return { verdict: 'reconnect', error: error('NETWORK', `the connection was lost (${code})`) };
  }
}

/** The verdict for an event stream that ended with `event: closing`; `retryMs` is its last `retry:`. */
export function ofClosing(code: string, message: string, retryMs: number | undefined): End {
  const error = new NervewireError(code, message);
  if (code === 'UNAUTHORIZED') return { verdict: 'renew', error };
  if (CLOSING_STOPS.has(code)) return { verdict: 'stop', error };
  return { verdict: 'reconnect', error, afterMs: retryMs ?? (code === 'QUOTA_EXCEEDED' ? BUSY_MS : undefined) };
}

/** The verdict for a request that was refused, got no response, or got one that cannot be parsed. */
export function ofRefusal(error: NervewireError): End {
  if (error.status === 401) return { verdict: 'renew', error };
  const leastMs = passesAfterMs(error);
  if (leastMs !== undefined) return { verdict: 'reconnect', error, afterMs: error.retryAfterMs ?? (leastMs || undefined) };
  // An error of the daemon is the same on every transport. An error of something in between concerns this
  // transport.
  return { verdict: error.code === 'NOT_NERVEWIRE' ? 'fall' : 'stop', error };
}

/** Least wait before a request is retried; `undefined`: it would fail again. */
export function repeatAfterMs(error: NervewireError): number | undefined {
  const leastMs = passesAfterMs(error);
  return leastMs === undefined ? undefined : (error.retryAfterMs ?? leastMs);
}

/** How long to wait after a temporary error without a time; `undefined`: the error is permanent. */
function passesAfterMs(error: NervewireError): number | undefined {
  switch (error.status) {
    case undefined:
      return error.code === 'TOO_LARGE' ? undefined : 0;
    case 408:
    case 500:
      return 0;
    case 429:
    case 502:
    case 503:
    case 504:
      return BUSY_MS;
    default:
      return undefined;
  }
}

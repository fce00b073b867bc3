/**
 * What to do when a connection ended: the table of docs/protocol.md ("How it ends", "SSE", "Errors"), and the only place that
 * decides it. Knows no sockets and no time. `tests/fixtures/verdicts.json` has its rows; the Rust client goes by the same.
 */
import { NervewireError } from './errors.js';

/**
 * - `again`: with the cursor, at once: it was our own wish
 * - `reconnect`: with the cursor, after a jittered while, `afterMs` at least
 * - `renew`: after a new credential
 * - `fall`: this transport does not work here, another may
 * - `stop`: not at all
 */
export type Verdict = 'again' | 'reconnect' | 'renew' | 'fall' | 'stop';

export interface End {
  verdict: Verdict;
  error: NervewireError;
  /** Wait at least so long. */
  afterMs?: number | undefined;
}

/** How long "later" is, for a 1013, which says no time of its own: what a second's publish rate needs to recover several times over. */
export const LATER_MS = 5_000;
/** And for what was refused for want of room without a time: 429, 502, 503, 504, and a stream closed for it. */
export const BUSY_MS = 1_000;

const STOPS = new Set([1002, 1003, 1007, 1008, 1009, 1010, 4403]);
const CLOSING_STOPS = new Set(['FORBIDDEN', 'BAD_REQUEST', 'VALIDATION_ERROR', 'NOT_FOUND']);

/** Of a WebSocket that was open. */
export function ofClose(code: number, reason: string): End {
  const error = (name: string, words: string) => new NervewireError(name, reason || words, { closeCode: code });
  if (STOPS.has(code)) {
    return { verdict: 'stop', error: error(code === 4403 ? 'FORBIDDEN' : 'BAD_REQUEST', `closed with ${code}`) };
  }
  switch (code) {
    case 4401:
      return { verdict: 'renew', error: error('UNAUTHORIZED', 'credential expired') };
    case 1013:
      return { verdict: 'reconnect', error: error('QUOTA_EXCEEDED', 'over a rate'), afterMs: LATER_MS };
    case 1011:
      return { verdict: 'reconnect', error: error('INTERNAL_ERROR', 'internal error') };
    case 1012:
    case 4408:
    case 4440:
      return { verdict: 'reconnect', error: error('UNAVAILABLE', `closed with ${code}`) };
    default:
      // 1006 and 1005: lost. 1000 and 1001 are never the daemon's own: something in between closed it.
      return { verdict: 'reconnect', error: error('NETWORK', `the connection was lost (${code})`) };
  }
}

/** Of an event stream that ended with `event: closing`; `retryMs` is what it said last under `retry:`. */
export function ofClosing(code: string, message: string, retryMs: number | undefined): End {
  const error = new NervewireError(code, message);
  if (code === 'UNAUTHORIZED') return { verdict: 'renew', error };
  if (CLOSING_STOPS.has(code)) return { verdict: 'stop', error };
  return { verdict: 'reconnect', error, afterMs: retryMs ?? (code === 'QUOTA_EXCEEDED' ? BUSY_MS : undefined) };
}

/** Of a request that was refused, or had no answer, or one that cannot be read. */
export function ofRefusal(error: NervewireError): End {
  if (error.status === 401) return { verdict: 'renew', error };
  const leastMs = passesAfterMs(error);
  if (leastMs !== undefined) return { verdict: 'reconnect', error, afterMs: error.retryAfterMs ?? (leastMs || undefined) };
  // What the daemon refuses it refuses on every transport; what something in between says is about this one.
  return { verdict: error.code === 'NOT_NERVEWIRE' ? 'fall' : 'stop', error };
}

/** The least wait before a request that may be repeated is; `undefined`: what failed would fail again. */
export function repeatAfterMs(error: NervewireError): number | undefined {
  const leastMs = passesAfterMs(error);
  return leastMs === undefined ? undefined : (error.retryAfterMs ?? leastMs);
}

/** How long to leave alone what failed, where it names no time; `undefined`: it does not pass. */
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

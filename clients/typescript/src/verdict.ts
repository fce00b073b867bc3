/**
 * What to do when a connection ended: the table of docs/protocol.md ("How it ends", "SSE", "Errors"), and the only place that
 * decides it. Knows no sockets and no time.
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

/** How long "later" is, for a 1013 that says no time of its own. */
export const LATER_MS = 15_000;

const STOPS = new Set([1002, 1003, 1007, 1008, 1009, 1010, 4403]);

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
  switch (code) {
    case 'UNAUTHORIZED':
      return { verdict: 'renew', error };
    case 'FORBIDDEN':
    case 'BAD_REQUEST':
      return { verdict: 'stop', error };
    default:
      return { verdict: 'reconnect', error, afterMs: retryMs };
  }
}

/** Of a request that was refused, or had no answer. */
export function ofRefusal(error: NervewireError): End {
  switch (error.status) {
    case undefined:
      return { verdict: 'reconnect', error };
    case 401:
      return { verdict: 'renew', error };
    case 408:
    case 429:
    case 503:
      return { verdict: 'reconnect', error, afterMs: error.retryAfterMs };
    default:
  }
  // What the daemon refuses it refuses on every transport; what something in between says is about this one.
  if (error.code === 'NOT_NERVEWIRE') return { verdict: 'fall', error };
  return { verdict: error.status >= 500 ? 'reconnect' : 'stop', error };
}

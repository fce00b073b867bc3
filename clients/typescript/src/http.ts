/**
 * Requests to the daemon: credential, time limit, errors and retries.
 *
 * - A request is retried after a lost response or a temporary error (`repeatAfterMs`) only if that does no
 *   harm: a read, a request with an `Idempotency-Key`, or one that the caller marked (`isRepeatable`).
 * - After a 401 there is one attempt with a new credential, if it can be renewed.
 */
import { Backoff, sleep } from './backoff.js';
import type { Credential } from './credential.js';
import { asError, NervewireError, refusalOf } from './errors.js';
import { repeatAfterMs } from './verdict.js';

/** Longest time of a request, milliseconds (option `requestTimeoutMs`). */
export const REQUEST_TIMEOUT_MS = 30_000;
/** Attempts of a request that may be retried. */
export const REQUEST_TRIES = 4;
/** Longest `Retry-After` that the client waits for. If it is longer, the error is thrown. */
export const RETRY_AFTER_MOST_MS = 10_000;

export type QueryValue = string | number | boolean | undefined;

export interface Call {
  query?: Record<string, QueryValue> | URLSearchParams;
  body?: unknown;
  headers?: Record<string, string>;
  /** Makes a request safe to repeat, so it is retried if the response is lost. */
  idempotencyKey?: string | undefined;
  /** The request does no harm when it is repeated, so it is retried if the response is lost. */
  isRepeatable?: boolean;
  signal?: AbortSignal | undefined;
  /** Use this token, and make no second attempt: the caller decides. */
  token?: string;
  timeoutMs?: number;
}

/** A response. `body` is `undefined` for 204. */
export interface Answer {
  status: number;
  headers: Headers;
  body: unknown;
}

export class Http {
  constructor(
    private readonly base: string,
    readonly credential: Credential,
    private readonly fetch: typeof globalThis.fetch,
    private readonly timeoutMs: number,
    private readonly backoff: () => Backoff,
  ) {}

  /** Returns the URL of `path` below `/api/v1`. The path must be escaped. */
  url(path: string, query?: Call['query']): string {
    const pairs = query instanceof URLSearchParams ? query : new URLSearchParams();
    if (query && !(query instanceof URLSearchParams)) {
      for (const [name, value] of Object.entries(query)) if (value !== undefined) pairs.set(name, String(value));
    }
    const text = pairs.toString();
    return `${this.base}/api/v1${path}${text && '?'}${text}`;
  }

  /** Sends a request. Returns the response if it is 2xx, and throws a `NervewireError` otherwise. */
  async call(method: string, path: string, call: Call = {}): Promise<Answer> {
    if (call.token !== undefined) return this.#once(method, path, call, call.token);
    const repeats = method === 'GET' || call.isRepeatable === true || call.idempotencyKey !== undefined;
    const backoff = this.backoff();
    let renewed = false;
    for (let tries = 1; ; tries += 1) {
      const token = await this.credential.current();
      try {
        return await this.#once(method, path, call, token);
      } catch (thrown) {
        const error = asError(thrown);
        if (call.signal?.aborted) throw error;
        if (error.status === 401 && this.credential.renewable && !renewed) {
          renewed = true;
          this.credential.refused(token);
          continue;
        }
        const wait = repeats && tries < REQUEST_TRIES ? repeatAfterMs(error) : undefined;
        if (wait === undefined || wait > RETRY_AFTER_MOST_MS) throw error;
        await sleep(backoff.next(wait), call.signal ?? new AbortController().signal);
      }
    }
  }

  /** Sends a request. Returns the response whatever its status; it ends with `signal`. */
  open(
    path: string,
    query: URLSearchParams,
    headers: Record<string, string>,
    token: string,
    signal: AbortSignal,
  ): Promise<Response> {
    return this.fetch(this.url(path, query), {
      headers: { ...this.credential.headers(token), ...headers },
      cache: 'no-store',
      signal,
    });
  }

  async #once(method: string, path: string, call: Call, token: string): Promise<Answer> {
    const headers: Record<string, string> = { accept: 'application/json', ...this.credential.headers(token), ...call.headers };
    if (call.body !== undefined) headers['content-type'] = 'application/json';
    if (call.idempotencyKey !== undefined) headers['idempotency-key'] = call.idempotencyKey;
    const end = new AbortController();
    const stop = () => end.abort(call.signal?.reason);
    const limit = call.timeoutMs ?? this.timeoutMs;
    const timeout = new NervewireError('TIMEOUT', `no response within ${limit} ms`);
    const timer = setTimeout(() => end.abort(timeout), limit);
    call.signal?.addEventListener('abort', stop);
    if (call.signal?.aborted) stop();
    try {
      const response = await this.fetch(this.url(path, call.query), {
        method,
        headers,
        body: call.body === undefined ? null : JSON.stringify(call.body),
        cache: 'no-store',
        signal: end.signal,
      });
      if (!response.ok) throw await refusalOf(response);
      const text = await response.text();
      return { status: response.status, headers: response.headers, body: text === '' ? undefined : parsed(text, response) };
    } catch (thrown) {
      if (end.signal.reason === timeout) throw timeout;
      throw asError(thrown);
    } finally {
      clearTimeout(timer);
      call.signal?.removeEventListener('abort', stop);
    }
  }
}

function parsed(text: string, response: Response): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new NervewireError('NOT_NERVEWIRE', 'the response is not JSON', { status: response.status, cause });
  }
}

/** Returns a new unique key. */
export function freshKey(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
}

/** Checks the daemon's address. */
export function baseOf(url: string): string {
  const here = (globalThis as { location?: { href?: string } }).location?.href;
  const base = new URL(url, here);
  if (!/^https?:$/.test(base.protocol)) throw new TypeError('url: must start with http:// or https://');
  if (base.username || base.password || base.search || base.hash) {
    throw new TypeError('url: must not contain a credential, query or fragment');
  }
  return base.origin + base.pathname.replace(/\/+$/, '');
}

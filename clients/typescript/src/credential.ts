/**
 * The credential of a client: a fixed token or API key, or tokens that are fetched again before they expire
 * and when one is refused.
 *
 * - At most one fetch runs at a time, for at most `GET_TOKEN_MOST_MS`. All requests that need the token
 *   meanwhile wait for its result.
 * - If the local clock is wrong, a renewal comes too early, or a refusal comes before the renewal. It never
 *   causes fetches without a pause.
 * - A token is never part of a URL: requests have it in a header, WebSockets use a ticket created with it.
 */
import { NervewireError } from './errors.js';

/** A token and its expiry (milliseconds since 1970, RFC 3339, or a `Date`). */
export interface ExpiringToken {
  token: string;
  expiresAt?: number | string | Date;
}

export type GetToken = () => Promise<string | ExpiringToken>;

/** A token is renewed this long before its expiry, or after four fifths of its life if that is short. */
export const RENEW_BEFORE_MS = 60_000;
/**
 * Least time between two fetches that no refusal caused. Otherwise tokens that seem expired would be fetched
 * without a pause.
 */
export const RENEW_LEAST_MS = 5_000;
/**
 * Longest time that `getToken` may take. After it, the requests that wait for the token fail instead of
 * hanging.
 */
export const GET_TOKEN_MOST_MS = 30_000;

interface Held {
  token: string;
  /** When to fetch the next token, milliseconds since 1970. */
  renewAt: number;
}

export class Credential {
  #held: Held | undefined;
  #fetching: Promise<string> | undefined;

  private constructor(
    private readonly fixed: { token: string; header: string } | undefined,
    private readonly getToken: GetToken | undefined,
  ) {}

  static of(options: { token?: string | undefined; apiKey?: string | undefined; getToken?: GetToken | undefined }): Credential {
    const { token, apiKey, getToken } = options;
    if ([token, apiKey, getToken].filter((one) => one !== undefined).length !== 1) {
      throw new TypeError('set exactly one of token, apiKey and getToken');
    }
    if (getToken) return new Credential(undefined, getToken);
    return new Credential(
      { token: token ?? apiKey ?? '', header: token === undefined ? 'x-api-key' : 'authorization' },
      undefined,
    );
  }

  /** No credential, for the one request that needs none. */
  static none(): Credential {
    return new Credential({ token: '', header: '' }, undefined);
  }

  /** Whether the token can be replaced by a new one. */
  get renewable(): boolean {
    return this.getToken !== undefined;
  }

  /** When to renew the current token, milliseconds since 1970; `undefined`: never. */
  get renewAt(): number | undefined {
    const at = this.#held?.renewAt;
    return at === Infinity ? undefined : at;
  }

  /** Returns a token that should be valid. */
  async current(): Promise<string> {
    if (this.fixed) return this.fixed.token;
    if (this.#held && Date.now() < this.#held.renewAt) return this.#held.token;
    this.#fetching ??= this.#fetch().finally(() => (this.#fetching = undefined));
    return this.#fetching;
  }

  /** Marks a token as refused by the daemon. It is not used again if it can be renewed. */
  refused(token: string): void {
    if (this.#held?.token === token) this.#held = undefined;
  }

  headers(token: string): Record<string, string> {
    const header = this.fixed?.header ?? 'authorization';
    if (header === '') return {};
    return { [header]: header === 'authorization' ? `Bearer ${token}` : token };
  }

  async #fetch(): Promise<string> {
    const got = await inTime((this.getToken as GetToken)());
    const { token, expiresAt } = typeof got === 'string' ? { token: got, expiresAt: undefined } : got;
    if (typeof token !== 'string' || token === '') throw new TypeError('getToken must return a token');
    const now = Date.now();
    const life = lifeOf(expiresAt === undefined ? timesOf(token) : { exp: new Date(expiresAt).getTime() }, now);
    const renewIn = Number.isNaN(life) ? Infinity : Math.max(life - RENEW_BEFORE_MS, life * 0.8, RENEW_LEAST_MS);
    this.#held = { token, renewAt: now + renewIn };
    return token;
  }
}

/** Returns the result of `promise`, or fails after its time limit. */
async function inTime<T>(promise: Promise<T>): Promise<T> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<never>((_, failed) => {
    const words = `getToken returned nothing within ${GET_TOKEN_MOST_MS} ms`;
    timer = setTimeout(() => failed(new NervewireError('TIMEOUT', words)), GET_TOKEN_MOST_MS);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

interface Times {
  exp?: number | undefined;
  iat?: number | undefined;
}

/**
 * Returns how long a token that was just received is valid, in milliseconds, by the local clock. If that
 * cannot be right, the clock is wrong: nobody issues a token that has expired, or that is valid longer than
 * from its `iat` to its `exp`. `Infinity`: until the daemon refuses it.
 */
function lifeOf({ exp = Infinity, iat = -Infinity }: Times, now: number): number {
  const left = exp - now;
  return left > 0 ? Math.min(left, exp - iat) : exp - iat;
}

/**
 * Returns `exp` and `iat` of a JWT in milliseconds, not verified, because only the daemon can verify them.
 * `undefined` if there are none.
 */
export function timesOf(token: string): Times {
  const [, payload = ''] = token.split('.');
  let claims: { exp?: unknown; iat?: unknown } = {};
  try {
    claims = Object(JSON.parse(atob(payload.replaceAll('-', '+').replaceAll('_', '/')))) as typeof claims;
  } catch {
    // not a JWT: an API key, or a format of the platform
  }
  const time = (claim: unknown) => (typeof claim === 'number' ? claim * 1000 : undefined);
  return { exp: time(claims.exp), iat: time(claims.iat) };
}

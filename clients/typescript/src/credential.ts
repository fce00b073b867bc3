/**
 * Who asks: a fixed token or API key, or tokens that are fetched anew before they expire and when one is refused.
 *
 * - At most one fetch at a time, within `GET_TOKEN_MOST_MS`; whoever asks meanwhile gets its result.
 * - A clock that is wrong here costs a renewal too early, or a refusal and then a renewal; never fetches without a pause.
 * - A token never goes into a URL: requests carry it in a header, WebSockets a ticket made with it.
 */
import { NervewireError } from './errors.js';

/** A token and when it ends (milliseconds since 1970, RFC 3339, or a `Date`). */
export interface ExpiringToken {
  token: string;
  expiresAt?: number | string | Date;
}

export type GetToken = () => Promise<string | ExpiringToken>;

/** A token is fetched anew so long before its end, or at four fifths of its life if that is short. */
export const RENEW_BEFORE_MS = 60_000;
/** Least time between two fetches that nobody's refusal asked for: tokens that seem to have ended would be fetched without pause. */
export const RENEW_LEAST_MS = 5_000;
/** Longest that `getToken` may take: beyond it, whoever waits for the token fails instead of hanging with it. */
export const GET_TOKEN_MOST_MS = 30_000;

interface Held {
  token: string;
  /** When to fetch the next. */
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
      throw new TypeError('give exactly one of token, apiKey and getToken');
    }
    if (getToken) return new Credential(undefined, getToken);
    return new Credential(
      { token: token ?? apiKey ?? '', header: token === undefined ? 'x-api-key' : 'authorization' },
      undefined,
    );
  }

  /** Nobody, for the one request that asks for no credential. */
  static none(): Credential {
    return new Credential({ token: '', header: '' }, undefined);
  }

  /** Whether there may be another after this one. */
  get renewable(): boolean {
    return this.getToken !== undefined;
  }

  /** When the token in use should be renewed, milliseconds since 1970; `undefined`: never. */
  get renewAt(): number | undefined {
    const at = this.#held?.renewAt;
    return at === Infinity ? undefined : at;
  }

  /** A token that should hold. */
  async current(): Promise<string> {
    if (this.fixed) return this.fixed.token;
    if (this.#held && Date.now() < this.#held.renewAt) return this.#held.token;
    this.#fetching ??= this.#fetch().finally(() => (this.#fetching = undefined));
    return this.#fetching;
  }

  /** The daemon refused this one: it is not used again if there may be another. */
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
    if (typeof token !== 'string' || token === '') throw new TypeError('getToken must give a token');
    const now = Date.now();
    const life = lifeOf(expiresAt === undefined ? timesOf(token) : { exp: new Date(expiresAt).getTime() }, now);
    const renewIn = Number.isNaN(life) ? Infinity : Math.max(life - RENEW_BEFORE_MS, life * 0.8, RENEW_LEAST_MS);
    this.#held = { token, renewAt: now + renewIn };
    return token;
  }
}

/** `asked`, or an error when its time is over. */
async function inTime<T>(asked: Promise<T>): Promise<T> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<never>((_, failed) => {
    const words = `getToken gave nothing within ${GET_TOKEN_MOST_MS} ms`;
    timer = setTimeout(() => failed(new NervewireError('TIMEOUT', words)), GET_TOKEN_MOST_MS);
  });
  try {
    return await Promise.race([asked, late]);
  } finally {
    clearTimeout(timer);
  }
}

interface Times {
  exp?: number | undefined;
  iat?: number | undefined;
}

/**
 * How long a token lives that was just got, milliseconds. By the clock here, unless that cannot be right: nobody gives a token that
 * has ended or that lives longer than from its `iat` to its `exp`. `Infinity`: until the daemon refuses it.
 */
function lifeOf({ exp = Infinity, iat = -Infinity }: Times, now: number): number {
  const left = exp - now;
  return left > 0 ? Math.min(left, exp - iat) : exp - iat;
}

/** `exp` and `iat` of a JWT in milliseconds, unverified: only the daemon can verify them. `undefined` where there are none. */
export function timesOf(token: string): Times {
  const [, payload = ''] = token.split('.');
  let claims: { exp?: unknown; iat?: unknown } = {};
  try {
    claims = Object(JSON.parse(atob(payload.replaceAll('-', '+').replaceAll('_', '/')))) as typeof claims;
  } catch {
    // no JWT: an API key, or something of the platform's own
  }
  const time = (claim: unknown) => (typeof claim === 'number' ? claim * 1000 : undefined);
  return { exp: time(claims.exp), iat: time(claims.iat) };
}

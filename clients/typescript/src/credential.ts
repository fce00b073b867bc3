/**
 * Who asks: a fixed token or API key, or tokens that are fetched anew before they expire and when one is refused.
 *
 * - At most one fetch at a time; whoever asks meanwhile gets its result.
 * - A token never goes into a URL: requests carry it in a header, WebSockets a ticket made with it.
 */

/** A token and when it ends (milliseconds since 1970, RFC 3339, or a `Date`). */
export interface ExpiringToken {
  token: string;
  expiresAt?: number | string | Date;
}

export type GetToken = () => Promise<string | ExpiringToken>;

/** A token is fetched anew so long before its end, or at four fifths of its life if that is short. */
export const RENEW_BEFORE_MS = 60_000;

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
    const got = await (this.getToken as GetToken)();
    const { token, expiresAt } = typeof got === 'string' ? { token: got, expiresAt: undefined } : got;
    if (typeof token !== 'string' || token === '') throw new TypeError('getToken must give a token');
    const now = Date.now();
    const end = expiresAt === undefined ? expiryOf(token) : new Date(expiresAt).getTime();
    const life = end === undefined || Number.isNaN(end) ? Infinity : Math.max(0, end - now);
    this.#held = { token, renewAt: now + Math.max(life - RENEW_BEFORE_MS, life * 0.8) };
    return token;
  }
}

/** `exp` of a JWT in milliseconds, unverified: only the daemon can verify it. `undefined` for anything else. */
export function expiryOf(token: string): number | undefined {
  const payload = token.split('.')[1];
  if (payload === undefined) return undefined;
  try {
    const { exp } = Object(JSON.parse(atob(payload.replaceAll('-', '+').replaceAll('_', '/')))) as { exp?: unknown };
    return typeof exp === 'number' ? exp * 1000 : undefined;
  } catch {
    return undefined;
  }
}

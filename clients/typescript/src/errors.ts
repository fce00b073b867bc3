/**
 * What can go wrong, as one class: the daemon's refusals with their code, and what never reached it.
 *
 * - `code` is for programs, `message` for people. A refusal has the daemon's `code` and a `status`; `NETWORK`, `TIMEOUT` and
 *   `CLOSED` are this client's own and have none.
 */

/** The body of every answer that is not 2xx. */
interface Refusal {
  code: string;
  message: string;
  details?: unknown;
}

export interface ErrorParts {
  status?: number | undefined;
  details?: unknown;
  requestId?: string | undefined;
  retryAfterMs?: number | undefined;
  closeCode?: number | undefined;
  cause?: unknown;
}

export class NervewireError extends Error {
  override readonly name = 'NervewireError';
  readonly code: string;
  /** The HTTP status, if there was an answer. */
  readonly status: number | undefined;
  readonly details: unknown;
  /** Name it when you report a problem. */
  readonly requestId: string | undefined;
  /** How long the daemon asked to wait. */
  readonly retryAfterMs: number | undefined;
  /** The WebSocket's close code, if that is how it ended. */
  readonly closeCode: number | undefined;

  constructor(code: string, message: string, parts: ErrorParts = {}) {
    super(message, parts.cause === undefined ? undefined : { cause: parts.cause });
    this.code = code;
    this.status = parts.status;
    this.details = parts.details ?? null;
    this.requestId = parts.requestId;
    this.retryAfterMs = parts.retryAfterMs;
    this.closeCode = parts.closeCode;
  }
}

/** An answer that is not 2xx. `code` is `NOT_NERVEWIRE` where the body is not the daemon's: something in between answered. */
export async function refusalOf(response: Response): Promise<NervewireError> {
  const text = await response.text().catch(() => '');
  const parts: ErrorParts = {
    status: response.status,
    requestId: response.headers.get('x-request-id') ?? undefined,
    retryAfterMs: retryAfter(response.headers.get('retry-after')),
  };
  const body = refusalIn(text);
  if (!body) return new NervewireError('NOT_NERVEWIRE', `${response.status} ${response.statusText}`.trim(), parts);
  return new NervewireError(body.code, body.message, { ...parts, details: body.details });
}

function refusalIn(text: string): Refusal | undefined {
  try {
    const body: unknown = JSON.parse(text);
    return isRefusal(body) ? body : undefined;
  } catch {
    return undefined;
  }
}

function isRefusal(body: unknown): body is Refusal {
  const { code, message } = Object(body) as Partial<Refusal>;
  return typeof code === 'string' && typeof message === 'string';
}

function retryAfter(seconds: string | null): number | undefined {
  return seconds !== null && /^\d+$/.test(seconds) ? Number(seconds) * 1000 : undefined;
}

/** Anything thrown, as a `NervewireError`. */
export function asError(thrown: unknown): NervewireError {
  if (thrown instanceof NervewireError) return thrown;
  const message = thrown instanceof Error ? thrown.message : String(thrown);
  return new NervewireError('NETWORK', message, { cause: thrown });
}

/**
 * All errors as one class: the daemon's error responses with their code, and failures of the client.
 *
 * - `code` is for programs, `message` for people. An error response has the daemon's `code` and a `status`.
 *   `NETWORK`, `TIMEOUT` and `CLOSED` are codes of this client and have no status.
 */

/** The body of every response that is not 2xx. */
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
  override readonly name: string = 'NervewireError';
  readonly code: string;
  /** The HTTP status, if there was a response. */
  readonly status: number | undefined;
  readonly details: unknown;
  /** The id of the request. Quote it when you report a problem. */
  readonly requestId: string | undefined;
  /** How long the daemon asked the client to wait. */
  readonly retryAfterMs: number | undefined;
  /** The close code of the WebSocket, if it was closed. */
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

/** Codes of the refusals that end the work of a stream's producer. */
export const STREAM_STATE_CODES = ['STREAM_FENCED', 'STREAM_CANCELLED', 'STREAM_ABANDONED', 'STREAM_ENDED'] as const;
export type StreamStateCode = (typeof STREAM_STATE_CODES)[number];

/**
 * The producer may not write any more: another one has taken the stream over (`STREAM_FENCED`), somebody
 * cancelled it (`STREAM_CANCELLED`), its producer was silent for too long (`STREAM_ABANDONED`), or it was
 * finished (`STREAM_ENDED`). Stop the model.
 */
export class StreamStateError extends NervewireError {
  override readonly name: string = 'StreamStateError';
  declare readonly code: StreamStateCode;

  constructor(code: StreamStateCode, message: string, parts: ErrorParts = {}) {
    super(code, message, parts);
  }
}

/**
 * Creates the error for a response that is not 2xx. `code` is `NOT_NERVEWIRE` if the body is not the
 * daemon's, so something in between responded.
 */
export async function refusalOf(response: Response): Promise<NervewireError> {
  const text = await response.text().catch(() => '');
  const parts: ErrorParts = {
    status: response.status,
    requestId: response.headers.get('x-request-id') ?? undefined,
    retryAfterMs: retryAfter(response.headers.get('retry-after')),
  };
  const body = refusalIn(text);
  if (!body) return new NervewireError('NOT_NERVEWIRE', `${response.status} ${response.statusText}`.trim(), parts);
  const { code, message, details } = body;
  if (isStreamState(code)) return new StreamStateError(code, message, { ...parts, details });
  return new NervewireError(code, message, { ...parts, details });
}

function isStreamState(code: string): code is StreamStateCode {
  return (STREAM_STATE_CODES as readonly string[]).includes(code);
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

/** Converts anything thrown into a `NervewireError`. */
export function asError(thrown: unknown): NervewireError {
  if (thrown instanceof NervewireError) return thrown;
  const message = thrown instanceof Error ? thrown.message : String(thrown);
  return new NervewireError('NETWORK', message, { cause: thrown });
}

/**
 * Keeps one session open: chooses the transport, waits between two attempts, renews the credential, until a
 * session ends for good.
 *
 * - A session is ended before the next one starts, and its later output is ignored.
 */
import { sleep, type Backoff } from './backoff.js';
import { asError, type NervewireError } from './errors.js';
import type { Http } from './http.js';
import { Ladder, SHORT_MS, type TransportName } from './ladder.js';
import { POLL_LIMIT } from './transports/poll.js';
import type {
  Ended,
  Pace,
  Position,
  Run,
  Session,
  Sink,
  StreamTarget,
  Timing,
  WebSocketConstructor,
} from './transports/session.js';
import type { End } from './verdict.js';

/**
 * Credentials refused in a row before it gives up: if a new one is refused as well, `getToken` returns
 * invalid ones.
 */
export const REFUSED_MOST = 2;

/** The state of a subscription. `waiting` is between two attempts. */
export type Status =
  | { state: 'connecting'; transport: TransportName; attempt: number }
  | { state: 'open'; transport: TransportName; resumed: boolean }
  | { state: 'waiting'; transport: TransportName; retryInMs: number; error: NervewireError }
  | { state: 'behind'; transport: TransportName }
  | { state: 'closed'; error?: NervewireError };

/** What the client gives to everything that reads. */
export interface Host {
  http: Http;
  WebSocket: WebSocketConstructor | undefined;
  /** The transports, the best first. */
  steps: readonly TransportName[];
  timing: Timing;
  climbAfterMs: number | undefined;
  backoff: () => Backoff;
  /** Called when a reader has ended. */
  left(reader: { close(): void }): void;
}

/** What is read, and by whom. */
export interface Reader {
  /** Aborted when the consumer has closed it. */
  readonly closing: AbortSignal;
  readonly filter: URLSearchParams;
  readonly run: Record<TransportName, Run>;
  /** Where the next session starts. */
  position(): Position;
  /** A value that changes when something has arrived. */
  reached(): string | number | undefined;
  /** What a reader of a stream needs besides the sink. */
  target?(session: AbortSignal): StreamTarget;
  /** Makes the receiver of a new session. `end` ends that session. */
  sink(end: AbortController): Omit<Sink, 'opened'>;
  /** A session is ready; `cursor`, if known, is its start. */
  opened(cursor: string | undefined): void;
  report(status: Status): void;
  /** Waits until the consumer has taken half of what was received. */
  caughtUp(transport: TransportName): Promise<void>;
}

/** Runs sessions until one ends for good. Returns that end; `undefined` if the consumer has closed the reader. */
export async function keepReading(host: Host, reader: Reader): Promise<End | undefined> {
  const ladder = new Ladder(host.steps, host.climbAfterMs);
  const backoff = host.backoff();
  const pace: Pace = { pollLimit: POLL_LIMIT };
  let refused = 0;
  let reached: string | number | undefined;
  while (!reader.closing.aborted) {
    const transport = ladder.begin(Date.now());
    reader.report({ state: 'connecting', transport, attempt: backoff.failures + 1 });
    const began = Date.now();
    const { ended, isReady } = await attempt(host, reader, transport, { until: ladder.climbAt, pace });
    if (reader.closing.aborted) return undefined;
    const livedMs = Date.now() - began;
    if (isReady) refused = 0;
    // A connection without progress makes the next wait longer, so that a daemon that accepts and closes at
    // once is not flooded.
    if (isReady && (reader.reached() !== reached || livedMs >= SHORT_MS)) backoff.reset();
    reached = reader.reached();
    const { verdict, error } = ended;
    if (verdict === 'again') {
      await reader.caughtUp(transport);
      continue;
    }
    if (verdict === 'stop' || verdict === 'done') return ended;
    if (verdict === 'renew') {
      refused += 1;
      if (!host.http.credential.renewable || refused >= REFUSED_MOST) return ended;
      if (backoff.failures === 0) {
        backoff.next(); // at once, but only one time
        continue;
      }
    }
    const now = Date.now();
    const fell =
      verdict === 'fall'
        ? ladder.fall(now)
        : ladder.ended({ ready: isReady, livedMs, heldBack: ended.heldBack ?? false, neutral: isNeutral(ended) }, now);
    if (fell) continue;
    const retryInMs = backoff.next(ended.afterMs);
    reader.report({ state: 'waiting', transport, retryInMs, error });
    await sleep(retryInMs, reader.closing);
  }
  return undefined;
}

/** Runs one session. It has its own abort signal. */
async function attempt(
  host: Host,
  reader: Reader,
  transport: TransportName,
  shared: Pick<Session, 'until' | 'pace'>,
): Promise<{ ended: Ended; isReady: boolean }> {
  const { http, WebSocket, timing } = host;
  const end = new AbortController();
  const closed = () => end.abort();
  reader.closing.addEventListener('abort', closed);
  let isReady = false;
  try {
    const token = await http.credential.current();
    const sink = reader.sink(end);
    const opened: Sink['opened'] = (cursor, resumed) => {
      if (end.signal.aborted) return;
      isReady = true;
      reader.opened(cursor);
      reader.report({ state: 'open', transport, resumed });
    };
    const { filter } = reader;
    const stream = reader.target?.(end.signal);
    const session: Session = {
      ...{ http, WebSocket, token, filter, stream, timing },
      position: reader.position(),
      sink: { ...sink, opened },
      signal: end.signal,
      ...shared,
    };
    const ended = await reader.run[transport](session);
    if (ended.verdict === 'renew') http.credential.refused(session.token);
    return { ended, isReady };
  } catch (thrown) {
    // getToken failed, or this client has a defect: in both cases it is retried and reported.
    return { ended: { verdict: 'reconnect', error: asError(thrown), neutral: true }, isReady };
  } finally {
    reader.closing.removeEventListener('abort', closed);
    end.abort();
  }
}

/** An end that the daemon announced proves nothing about the transport; a loss does. */
function isNeutral(ended: Ended): boolean {
  return ended.neutral ?? !['NETWORK', 'TIMEOUT', 'NOT_NERVEWIRE'].includes(ended.error.code);
}

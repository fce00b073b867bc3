/**
 * Long-poll of one stream: repeats `GET /streams/{id}`, each response whole or not at all. For networks that
 * block the other transports.
 */
import { sleep } from '../backoff.js';
import { asError, NervewireError } from '../errors.js';
import type { StreamWithText } from '../streams/shapes.js';
import { ofRefusal } from '../verdict.js';
import { again, complete, lost, type Ended, type Session } from './session.js';

/** How long a stream may be unknown before reading it fails, as on the other transports. */
export const UNKNOWN_WAIT_MS = 60_000;
/** The time between two requests for a stream that is not open yet. */
export const UNKNOWN_EVERY_MS = 1_000;

export async function overStreamPoll(session: Session): Promise<Ended> {
  const { http, stream, sink, signal, timing } = session;
  if (!stream) return { verdict: 'fall', error: new NervewireError('NETWORK', 'long-poll was not asked for a stream') };
  const unknownUntil = Date.now() + UNKNOWN_WAIT_MS;
  let known: number | undefined;
  try {
    while (!signal.aborted) {
      if (known !== undefined && Date.now() >= session.until) return again('a better transport is tried again');
      // The first response comes at once and shows that the stream can be read.
      const wait = known === undefined ? 0 : timing.pollWaitSeconds;
      const query: Record<string, string | number | undefined> = { wait, known, parts: stream.parts };
      if (stream.parts === 'text') query.offset = stream.offset();
      session.token = await http.credential.current();
      const call = { query, token: session.token, signal, timeoutMs: wait * 1000 + timing.readyTimeoutMs };
      let shown: StreamWithText;
      try {
        shown = streamIn((await http.call('GET', `/streams/${encodeURIComponent(stream.requestId)}`, call)).body);
      } catch (thrown) {
        const error = asError(thrown);
        if (error.status !== 404 || Date.now() >= unknownUntil) throw error;
        await sleep(UNKNOWN_EVERY_MS, signal);
        continue;
      }
      if (signal.aborted) break;
      if (known === undefined) sink.opened(undefined, false);
      known = shown.next_index;
      stream.snapshot(shown);
      if (shown.state !== 'open') {
        stream.done(shown);
        return complete();
      }
    }
    return lost('closed');
  } catch (thrown) {
    return ofRefusal(asError(thrown));
  }
}

function streamIn(body: unknown): StreamWithText {
  const { data } = Object(body) as { data?: Partial<StreamWithText> };
  if (typeof data?.next_index !== 'number' || typeof data.state !== 'string') {
    throw new NervewireError('NOT_NERVEWIRE', 'the response is not a stream', { status: 200 });
  }
  return data as StreamWithText;
}

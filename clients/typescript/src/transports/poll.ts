/**
 * Long-poll: repeats `GET /events`, each response whole or not at all. For networks that block the other
 * transports.
 */
import { asError, NervewireError } from '../errors.js';
import type { EventPage } from '../generated.js';
import { ofRefusal } from '../verdict.js';
import { again, lost, positioned, type Ended, type Position, type Session } from './session.js';

/** Most events per request. */
export const POLL_LIMIT = 1000;

export async function overPoll(session: Session): Promise<Ended> {
  const { http, sink, signal, timing, pace } = session;
  let position: Position = session.position;
  const hasPosition = position.cursor !== undefined || position.since !== undefined || position.earliest === true;
  let isReady = false;
  let isCaughtUp = false;
  try {
    while (!signal.aborted) {
      if (isReady && Date.now() >= session.until) return again('a better transport is tried again');
      if (sink.room() === 0) {
        await sink.drained();
        continue;
      }
      const query = positioned(session.filter, position, 'after');
      query.set('limit', String(Math.min(pace.pollLimit, sink.room())));
      // The first response comes at once and shows that the subscription is ready.
      const wait = isReady && isCaughtUp ? timing.pollWaitSeconds : 0;
      query.set('wait', String(wait));
      const timeoutMs = wait * 1000 + timing.readyTimeoutMs;
      session.token = await http.credential.current();
      const { token } = session;
      const answer = await http.call('GET', '/events', { query, token, signal, timeoutMs });
      const page = pageIn(answer.body);
      pace.pollLimit = Math.min(POLL_LIMIT, pace.pollLimit * 2);
      if (signal.aborted) break;
      if (!isReady) {
        isReady = true;
        // The start is known unless the daemon chose it. The events follow at once, before anything can fail.
        const begins = position.cursor ?? (hasPosition ? undefined : page.next_cursor);
        sink.opened(begins, position.cursor !== undefined && page.gap === null);
      }
      if (page.gap) sink.gap({ type: 'gap', ...page.gap });
      for (const event of page.data) sink.event(event);
      sink.cursor(page.next_cursor);
      if (page.caught_up && !isCaughtUp) {
        isCaughtUp = true;
        if (hasPosition) sink.caughtUp(page.next_cursor);
      }
      position = { cursor: page.next_cursor };
    }
    return lost('closed');
  } catch (thrown) {
    const error = asError(thrown);
    if (error.status === undefined) pace.pollLimit = Math.max(1, pace.pollLimit >> 1);
    return ofRefusal(error);
  }
}

function pageIn(body: unknown): Omit<EventPage, 'success'> {
  const page = Object(body) as Partial<EventPage>;
  if (!Array.isArray(page.data) || typeof page.next_cursor !== 'string') {
    throw new NervewireError('NOT_NERVEWIRE', 'the response is not a page of events', { status: 200 });
  }
  return { data: page.data, next_cursor: page.next_cursor, gap: page.gap ?? null, caught_up: page.caught_up === true };
}

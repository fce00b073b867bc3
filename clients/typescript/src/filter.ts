/** The filter of a subscriber, as query parameters of every endpoint that delivers events. */
import type { EventType } from './events.js';
import type { Position } from './transports/session.js';

export interface Filter<K extends EventType = EventType> {
  types?: K | readonly K[] | undefined;
  agentId?: string | readonly string[] | undefined;
  userId?: string | readonly string[] | undefined;
  requestId?: string | readonly string[] | undefined;
  /** `orders/*` matches everything below `orders/`. */
  channel?: string | readonly string[] | undefined;
}

/** The start position. The first one that is set counts; without any, now. */
export interface Start {
  /** A cursor: start right after it. */
  lastEventId?: string | undefined;
  /** Start with the first event received at or after this time. */
  since?: Date | string | undefined;
  /** Start with the oldest retained event. */
  earliest?: boolean | undefined;
}

const NAMES = { types: 'types', agentId: 'agent_id', userId: 'user_id', requestId: 'request_id', channel: 'channel' } as const;

export function queryOf(filter: Filter): URLSearchParams {
  const query = new URLSearchParams();
  for (const [option, name] of Object.entries(NAMES) as [keyof typeof NAMES, string][]) {
    const given = filter[option];
    if (given === undefined) continue;
    query.set(name, listed(option, typeof given === 'string' ? [given] : given));
  }
  return query;
}

/**
 * Joins values into one parameter. Throws for a value with a comma, which separates values, and for an empty
 * list, which would match everything instead of nothing.
 */
export function listed(option: string, values: readonly string[]): string {
  if (values.length === 0) throw new TypeError(`${option}: an empty list matches nothing; leave it out to match everything`);
  for (const value of values) {
    if (value === '' || value.includes(',')) throw new TypeError(`${option}: a value must not be empty or contain a comma`);
  }
  return values.join(',');
}

export function positionOf({ lastEventId, since, earliest }: Start): Position {
  if (lastEventId) return { cursor: lastEventId };
  if (since !== undefined) return { since: typeof since === 'string' ? since : since.toISOString() };
  return earliest ? { earliest } : {};
}

/**
 * Parses what the daemon sends on a subscription: an event has an `id`, a control frame has none.
 *
 * - Unknown control frames are ignored, so that a newer daemon may send more.
 */
import type { GapFrame, NervewireEvent } from './events.js';
import type { StreamEndFrame } from './streams/shapes.js';

export type Frame =
  | { kind: 'event'; event: NervewireEvent }
  | { kind: 'ready'; cursor: string; resumed: boolean; replaying: number; heartbeatMs: number; ref: Ref }
  | { kind: 'gap'; gap: GapFrame }
  | { kind: 'caught_up'; cursor: string }
  /** Store this cursor. */
  | { kind: 'cursor'; cursor: string }
  | { kind: 'ack'; ref: Ref }
  /** A stream has ended, and everything before its end was delivered. */
  | { kind: 'done'; end: StreamEndFrame }
  | { kind: 'error'; code: string; message: string; ref: Ref }
  | { kind: 'other' };

type Ref = string | number | undefined;

/** Used if the daemon sent no interval. */
const HEARTBEAT_SECONDS = 30;

/** Parses a frame. Throws a `SyntaxError` if it is not a JSON object. */
export function frameOf(json: string): Frame {
  const frame: unknown = JSON.parse(json);
  if (typeof frame !== 'object' || frame === null) throw new SyntaxError('a frame must be a JSON object');
  const { id, type, cursor, ref } = frame as { id?: unknown; type?: unknown; cursor?: unknown; ref?: Ref };
  if (typeof id === 'string') return { kind: 'event', event: frame as NervewireEvent };
  if (type === 'gap') return { kind: 'gap', gap: frame as GapFrame };
  if (type === 'ack') return { kind: 'ack', ref };
  if (type === 'error') {
    const { code, message } = frame as { code: string; message: string };
    return { kind: 'error', code, message, ref };
  }
  if (type === 'done') return { kind: 'done', end: frame as StreamEndFrame };
  if (typeof cursor !== 'string') return { kind: 'other' };
  if (type === 'caught_up') return { kind: 'caught_up', cursor };
  if (type === 'ping' || type === 'heartbeat') return { kind: 'cursor', cursor };
  if (type !== 'ready') return { kind: 'other' };
  const { resumed, replaying, heartbeat_seconds } = frame as {
    resumed?: boolean;
    replaying?: number;
    heartbeat_seconds?: number;
  };
  const heartbeatMs = (heartbeat_seconds || HEARTBEAT_SECONDS) * 1000;
  return { kind: 'ready', cursor, resumed: resumed === true, replaying: replaying ?? 0, heartbeatMs, ref };
}

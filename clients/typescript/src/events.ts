/**
 * The daemon's events and the gap, as in its AsyncAPI document. `EventOf<'message'>` is an event of one type.
 */
import type { Event, GapFrame, NewEvent } from './generated.js';

export type NervewireEvent = Event;
export type { GapFrame, NewEvent };

export type EventType = NervewireEvent['type'];

/** An event of this type, or of one of these types. */
export type EventOf<K extends EventType> = Extract<NervewireEvent, { type: K }>;

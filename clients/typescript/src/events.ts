/** The daemon's events and the gap, as its AsyncAPI document has them. `EventOf<'message'>` is an event of one kind. */
import type { Event, GapFrame, NewEvent } from './generated.js';

export type NervewireEvent = Event;
export type { GapFrame, NewEvent };

export type EventType = NervewireEvent['type'];

/** An event of this kind, or of one of these. */
export type EventOf<K extends EventType> = Extract<NervewireEvent, { type: K }>;

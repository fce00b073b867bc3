/**
 * Types of the daemon's documents, written by scripts/generate.mjs: change those, not this.
 */
/* eslint-disable */

/** Accepted, and on disk, or as far as was asked for. */
export interface AckFrame {
  /** In the order the events were given. */
  ids: string[];
  /** `null` if none was given. */
  ref: Ref | null;
  type: "ack";
}

/** An agent's status, or what became of the agent. */
export interface AgentUpdateEvent {
  /** The agent concerned. At most 256 bytes of UTF-8. */
  agent_id: string;
  /** Why it failed. */
  error_message?: string;
  /** The event's cursor. */
  id: string;
  /** Free data. At most 8192 bytes. */
  metadata?: Record<string, unknown>;
  /** What it does, or what became of it. */
  status: "idle" | "thinking" | "executing" | "waiting" | "error" | "created" | "deleted";
  /** When it happened; the time of receipt where none is given. */
  timestamp: string;
  type: "agent_update";
}

/** Renews the credential: the same organization and `sub`; answered by `ack`. */
export interface AuthFrame {
  ref?: Ref | null;
  /** A JWT or an API key. */
  token: string;
  type: "auth";
}

/** The producer of this stream is to stop. */
export interface CancelFrame {
  /** The stream. */
  request_id: string;
  type: "cancel";
}

/** The replay is over; once for each subscription that asked for a position. */
export interface CaughtUpFrame {
  /** The position. */
  cursor: string;
  type: "caught_up";
}

/** Cancels a stream. */
export interface ClientCancelFrame {
  ref?: Ref | null;
  /** The stream. */
  request_id: string;
  type: "cancel";
}

/** What a WebSocket client says. Told apart by `type`. */
export type ClientFrame = SubscribeFrame | PublishFrame | AuthFrame | ClientPingFrame | ClientPongFrame | ClientCancelFrame;

/** Answered by `pong`. */
export interface ClientPingFrame {
  /** Not looked at. */
  cursor?: unknown;
  ref?: Ref | null;
  /** Not looked at. */
  timestamp?: unknown;
  type: "ping";
}

/** Answers the daemon's `ping`. */
export interface ClientPongFrame {
  /** Not looked at. */
  cursor?: unknown;
  ref?: Ref | null;
  /** Not looked at. */
  timestamp?: unknown;
  type: "pong";
}

/** Anything else, on a named channel. */
export interface CustomEvent {
  /** The agent concerned. At most 256 bytes of UTF-8. */
  agent_id?: string;
  /** Names separated by single slashes, without `*`. At most 200 bytes of UTF-8. */
  channel: string;
  /** Any JSON. */
  data: unknown;
  /** The event's cursor. */
  id: string;
  /** When it happened; the time of receipt where none is given. */
  timestamp: string;
  type: "custom";
  /** The user who may see it; without it everyone of the organization may. At most 256 bytes of UTF-8. */
  user_id?: string;
}

/** Something failed. */
export interface ErrorEvent {
  /** The agent concerned. At most 256 bytes of UTF-8. */
  agent_id?: string;
  /** For programs. At most 64 bytes of UTF-8. */
  code: string;
  /** The event's cursor. */
  id: string;
  /** For people. */
  message: string;
  /** The stream that failed. At most 256 bytes of UTF-8. */
  request_id?: string;
  /** When it happened; the time of receipt where none is given. */
  timestamp: string;
  type: "error";
  /** The user who may see it; without it everyone of the organization may. At most 256 bytes of UTF-8. */
  user_id?: string;
}

/** A frame was refused; on SSE, as `event: closing`, the last word. Unlike an event of this type it has no `id`. */
export interface ErrorFrame {
  /** For programs. */
  code: string;
  /** More, if there is any. */
  details?: Record<string, unknown>;
  /** For people. */
  message: string;
  ref?: Ref;
  type: "error";
}

/** An event, as subscribers get it. Told apart by `type`. */
export type Event = MessageEvent | AgentUpdateEvent | MemoryUpdateEvent | StreamChunkEvent | ErrorEvent | CustomEvent;

/** Events are missing here: fetch the state anew. */
export interface GapFrame {
  /** The cursor or time that was asked for, cut to 64 bytes. */
  after: string;
  /** `trimmed`, `lagged`: goes on from the oldest retained event; `unknown_cursor`: goes on live. */
  reason: "trimmed" | "lagged" | "unknown_cursor";
  /** Where it goes on. */
  resumes_at: string;
  type: "gap";
}

/** SSE: keep this cursor. */
export interface HeartbeatFrame {
  /** The position. */
  cursor: string;
  /** Now. */
  timestamp: string;
  type: "heartbeat";
}

/** A memory was created, changed or deleted. */
export interface MemoryUpdateEvent {
  /** The agent concerned. At most 256 bytes of UTF-8. */
  agent_id: string;
  /** The event's cursor. */
  id: string;
  /** The memory. At most 256 bytes of UTF-8. */
  memory_id: string;
  /** Free data. At most 8192 bytes. */
  metadata?: Record<string, unknown>;
  /** What became of it. */
  operation: "created" | "updated" | "deleted";
  /** When it happened; the time of receipt where none is given. */
  timestamp: string;
  type: "memory_update";
  /** The user who may see it; without it everyone of the organization may. At most 256 bytes of UTF-8. */
  user_id?: string;
}

/** A chat message. */
export interface MessageEvent {
  /** The agent concerned. At most 256 bytes of UTF-8. */
  agent_id: string;
  /** The text. */
  content: string;
  /** The event's cursor. */
  id: string;
  /** The message's id; one of your own is published once within 24 hours. At most 256 bytes of UTF-8. */
  message_id: string;
  /** Free data. At most 8192 bytes. */
  metadata?: Record<string, unknown>;
  /** Who speaks. */
  role?: "user" | "assistant" | "system" | "tool";
  /** When it happened; the time of receipt where none is given. */
  timestamp: string;
  type: "message";
  /** The user who may see it; without it everyone of the organization may. At most 256 bytes of UTF-8. */
  user_id?: string;
}

/** An agent's status, or what became of the agent. */
export interface NewAgentUpdateEvent {
  /** The agent concerned. At most 256 bytes of UTF-8. */
  agent_id: string;
  /** Why it failed. */
  error_message?: string;
  /** Free data. At most 8192 bytes. */
  metadata?: Record<string, unknown>;
  /** What it does, or what became of it. */
  status: "idle" | "thinking" | "executing" | "waiting" | "error" | "created" | "deleted";
  /** When it happened; the time of receipt where none is given. */
  timestamp?: string;
  type: "agent_update";
}

/** Anything else, on a named channel. */
export interface NewCustomEvent {
  /** The agent concerned. At most 256 bytes of UTF-8. */
  agent_id?: string;
  /** Names separated by single slashes, without `*`. At most 200 bytes of UTF-8. */
  channel: string;
  /** Any JSON. */
  data: unknown;
  /** When it happened; the time of receipt where none is given. */
  timestamp?: string;
  type: "custom";
  /** The user who may see it; without it everyone of the organization may. At most 256 bytes of UTF-8. */
  user_id?: string;
}

/** Something failed. */
export interface NewErrorEvent {
  /** The agent concerned. At most 256 bytes of UTF-8. */
  agent_id?: string;
  /** For programs. At most 64 bytes of UTF-8. */
  code: string;
  /** For people. */
  message: string;
  /** The stream that failed. At most 256 bytes of UTF-8. */
  request_id?: string;
  /** When it happened; the time of receipt where none is given. */
  timestamp?: string;
  type: "error";
  /** The user who may see it; without it everyone of the organization may. At most 256 bytes of UTF-8. */
  user_id?: string;
}

/** An event, as publishers send it. Told apart by `type`. */
export type NewEvent = NewMessageEvent | NewAgentUpdateEvent | NewMemoryUpdateEvent | NewStreamChunkEvent | NewErrorEvent | NewCustomEvent;

/** A batch: all of it is accepted, or none. */
export type NewEvents = NewEvent[];

/** A memory was created, changed or deleted. */
export interface NewMemoryUpdateEvent {
  /** The agent concerned. At most 256 bytes of UTF-8. */
  agent_id: string;
  /** The memory. At most 256 bytes of UTF-8. */
  memory_id: string;
  /** Free data. At most 8192 bytes. */
  metadata?: Record<string, unknown>;
  /** What became of it. */
  operation: "created" | "updated" | "deleted";
  /** When it happened; the time of receipt where none is given. */
  timestamp?: string;
  type: "memory_update";
  /** The user who may see it; without it everyone of the organization may. At most 256 bytes of UTF-8. */
  user_id?: string;
}

/** A chat message. */
export interface NewMessageEvent {
  /** The agent concerned. At most 256 bytes of UTF-8. */
  agent_id: string;
  /** The text. */
  content: string;
  /** The message's id; one of your own is published once within 24 hours. At most 256 bytes of UTF-8. */
  message_id?: string;
  /** Free data. At most 8192 bytes. */
  metadata?: Record<string, unknown>;
  /** Who speaks. */
  role?: "user" | "assistant" | "system" | "tool";
  /** When it happened; the time of receipt where none is given. */
  timestamp?: string;
  type: "message";
  /** The user who may see it; without it everyone of the organization may. At most 256 bytes of UTF-8. */
  user_id?: string;
}

/** A piece of an LLM's output. */
export interface NewStreamChunkEvent {
  /** The agent concerned. At most 256 bytes of UTF-8. */
  agent_id?: string;
  /** The next piece of text; may be empty. */
  chunk: string;
  /** The first of several that were merged; `index` is the last of them. */
  first_index?: number;
  /** Its place in the stream. */
  index?: number;
  /** Whether it is the last one. */
  is_final: boolean;
  /** Free data. At most 8192 bytes. */
  metadata?: Record<string, unknown>;
  /** The stream. At most 256 bytes of UTF-8. */
  request_id: string;
  /** When it happened; the time of receipt where none is given. */
  timestamp?: string;
  type: "stream_chunk";
  /** The user who may see it; without it everyone of the organization may. At most 256 bytes of UTF-8. */
  user_id?: string;
}

/** WebSocket: keep this cursor, and say something. */
export interface PingFrame {
  /** The position. */
  cursor: string;
  /** Now. */
  timestamp: string;
  type: "ping";
}

/** The answer to a client's `ping`. */
export interface PongFrame {
  /** Now. */
  timestamp: string;
  type: "pong";
}

/** Publishes one event or a batch; answered by `ack` or `error`. */
export interface PublishFrame {
  /** `memory`: the ack need not wait for the disk. */
  ack?: "memory" | "" | null;
  event?: NewEvent;
  events?: NewEvent[];
  ref?: Ref | null;
  type: "publish";
}

/** A subscription begins. */
export interface ReadyFrame {
  /** The connection's id, as `/api/v1/connections` lists it. */
  connection_id: string;
  /** Where it begins. */
  cursor: string;
  /** Seconds between signs of life. */
  heartbeat_seconds: number;
  ref?: Ref;
  /** At most so many events come before `caught_up`, before filters. */
  replaying: number;
  /** A cursor was accepted without a gap. */
  resumed: boolean;
  type: "ready";
}

/** A client's own name for a frame, echoed in its answer. */
export type Ref = number | string;

/** What the daemon tells one connection and does not log. Told apart by `type`. */
export type ServerFrame = ReadyFrame | GapFrame | CaughtUpFrame | HeartbeatFrame | PingFrame | PongFrame | AckFrame | CancelFrame | ErrorFrame;

/** A piece of an LLM's output. */
export interface StreamChunkEvent {
  /** The agent concerned. At most 256 bytes of UTF-8. */
  agent_id?: string;
  /** The next piece of text; may be empty. */
  chunk: string;
  /** The first of several that were merged; `index` is the last of them. */
  first_index?: number;
  /** The event's cursor. */
  id: string;
  /** Its place in the stream. */
  index?: number;
  /** Whether it is the last one. */
  is_final: boolean;
  /** Free data. At most 8192 bytes. */
  metadata?: Record<string, unknown>;
  /** The stream. At most 256 bytes of UTF-8. */
  request_id: string;
  /** When it happened; the time of receipt where none is given. */
  timestamp: string;
  type: "stream_chunk";
  /** The user who may see it; without it everyone of the organization may. At most 256 bytes of UTF-8. */
  user_id?: string;
}

/** Replaces the filter, and the position if one is given; answered by `ready`. */
export interface SubscribeFrame {
  /** Agents, a comma list of at most 100: events with one of these. Empty counts as absent. Or an array, whose items may hold commas. */
  agent_id?: string | null | string[];
  /** Channels; `a/*` is everything below `a/`, a comma list of at most 100: events with one of these. Empty counts as absent. Or an array, whose items may hold commas. */
  channel?: string | null | string[];
  /** Goes on from the oldest event that is kept. */
  earliest?: boolean | null;
  /** Goes on after this cursor. */
  last_event_id?: string | null;
  ref?: Ref | null;
  /** Streams, a comma list of at most 100: events with one of these. Empty counts as absent. Or an array, whose items may hold commas. */
  request_id?: string | null | string[];
  /** Goes on from this time. */
  since?: string | null;
  type: "subscribe";
  /** Kinds of event, a comma list of at most 100: events with one of these. Empty counts as absent. Or an array, whose items may hold commas. */
  types?: string | null | string[];
  /** Users, a comma list of at most 100: events with one of these. Empty counts as absent. Or an array, whose items may hold commas. */
  user_id?: string | null | string[];
}

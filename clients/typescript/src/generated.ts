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

/** An agent as clients see it. */
export interface Agent {
  /** A name the platform gives a meaning. */
  agent_type: string | null;
  /** When it was made. */
  created_at: string;
  /** For people. */
  description: string | null;
  /** JSON of the platform's. */
  embedding_config: unknown;
  /** Why it failed, while its state is `error`. */
  error_message: string | null;
  /** `agent-<uuid7>`. */
  id: string;
  /** When its state was last told. */
  last_active_at: string | null;
  /** JSON of the platform's. */
  llm_config: unknown;
  /** Free data. */
  metadata: Record<string, unknown> | null;
  /** For people. */
  name: string | null;
  /** Its organization. */
  organization_id: string;
  /** The user who may change it with the scope `write`; `null`: changing it takes `agents`. */
  owner: string | null;
  /** What it does. */
  state: AgentStatus;
  /** The system prompt. */
  system: string | null;
  /** JSON of the platform's. */
  tool_rules: unknown;
  /** When it was last changed. */
  updated_at: string;
}

/** What is to be said of an agent: a field that is absent stays as it is, `null` clears it. */
export interface AgentChange {
  /** A name the platform gives a meaning. At most 255 bytes of UTF-8. */
  agent_type?: string | null;
  /** For people. At most 16384 bytes of UTF-8. */
  description?: string | null;
  /** JSON of the platform's. */
  embedding_config?: unknown;
  /** JSON of the platform's. */
  llm_config?: unknown;
  /** Free data. */
  metadata?: Record<string, unknown> | null;
  /** Not blank. At most 255 bytes of UTF-8. */
  name?: string | null;
  /**
   * The user who may change it; absent in a new agent: the caller. Another than oneself, or `null` for nobody, takes the scope
   * `agents`. At most 256 bytes of UTF-8.
   */
  owner?: string | null;
  /** The system prompt. At most 16384 bytes of UTF-8. */
  system?: string | null;
  /** JSON of the platform's. */
  tool_rules?: unknown;
}

/** What an agent does. */
export interface AgentState {
  /** The agent. */
  agent_id: string;
  /** Why it failed, while its state is `error`. */
  error_message: string | null;
  /** When that was last told. */
  last_active_at: string | null;
  /** What it does. */
  state: AgentStatus;
}

/** What an agent does from now on. */
export interface AgentStateChange {
  /** Why it failed; kept with the state `error` alone. At most 16384 bytes of UTF-8. */
  error_message?: string | null;
  /** What it does. */
  state: AgentStatus;
}

/** What an agent does. */
export type AgentStatus = "idle" | "thinking" | "executing" | "waiting" | "error";

/** An agent's status, or what became of the agent. */
export interface AgentUpdateEvent {
  /** The agent that the event is about. At most 256 bytes of UTF-8. */
  agent_id: string;
  /** Why the agent failed. */
  error_message?: string;
  /** The event's cursor. */
  id: string;
  /** Any JSON object. At most 8192 bytes. */
  metadata?: Record<string, unknown>;
  /** The agent's status. */
  status: "idle" | "thinking" | "executing" | "waiting" | "error" | "created" | "deleted";
  /** When it happened. Defaults to the time of receipt. */
  timestamp: string;
  type: "agent_update";
}

/** An API key as clients see it. */
export interface ApiKey {
  /** The agents it may touch; `null`: all. */
  agents: string[] | null;
  /** The channels it may touch; `null`: all. */
  channels: string[] | null;
  /** When it was made. */
  created_at: string;
  /** When it ends; `null`: never. */
  expires_at: string | null;
  /** Names it; no secret. */
  key_id: string;
  /** When it was last used. */
  last_used_at: string | null;
  /** For people. */
  name: string;
  /** Its organization. */
  org_id: string | null;
  /** What it may do. */
  scopes: string[];
  /** The kinds of event it may touch; `null`: all. */
  types: string[] | null;
}

/** Renews the credential: the same organization and `sub`; answered by `ack`. */
export interface AuthFrame {
  ref?: Ref | null;
  /** A JWT or an API key. */
  token: string;
  type: "auth";
}

/** What a batch came to. */
export interface Batch {
  /** What is wrong with the others. */
  errors: BatchItemError[];
  /** How many were not. */
  failed: number;
  /** The ids of what was made or deleted. */
  results: string[];
  /** How many were. */
  successful: number;
}

/** What a batch came to, in the envelope, and beside it for clients that know none. */
export interface BatchAnswer {
  /** The outcome. */
  data: Batch;
  /** What is wrong with the others. */
  errors: BatchItemError[];
  /** How many were not. */
  failed: number;
  /** The ids of what was made or deleted. */
  results: string[];
  success: true;
  /** How many were. */
  successful: number;
}

/** What is wrong with one item. */
export interface BatchItemError {
  /** For programs; those of refusals. */
  code: string;
  /** More for a program, or `null`. */
  details: unknown;
  /** Its id, where it named one. */
  id?: string | null;
  /** Which, from 0. */
  index: number;
  /** For people. */
  message: string;
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

/** How many connections were closed. */
export interface Closed {
  /** How many. */
  closed: number;
}

/** One connection, as a listing shows it. */
export interface Connection {
  /** How many sequences the cursor is behind the end. */
  cursor_lag: number;
  /** The filter as query parameters; empty for everything that the connection may see. */
  filter: string;
  /** Its id. */
  id: string;
  /** The API key that the connection was opened with. */
  key_id: string | null;
  /** The client's address; absent for a unix socket. */
  peer: string | null;
  /** True if the connection only publishes. */
  publish_only: boolean;
  /** Number of bytes written. */
  sent_bytes: number;
  /** Number of events written. */
  sent_events: number;
  /** When the connection was opened. */
  since: string;
  /** `ws`, `sse`, `sse_h2`, `sse_http10`. */
  transport: "ws" | "sse" | "sse_h2" | "sse_http10";
  /** The credential's `sub`. */
  user: string | null;
}

/** A block of core memory as clients see it. */
export interface CoreMemoryBlock {
  /** Whose memory it is. */
  agent_id: string;
  /** When it was made. */
  created_at: string;
  /** `block-<uuid7>`: the `memory_id` of the events that tell of it. */
  id: string;
  /** What it is about. */
  label: CoreMemoryLabel;
  /** Most characters of the text. */
  limit: number;
  /** Its organization. */
  organization_id: string;
  /** When it was last changed. */
  updated_at: string;
  /** Whom it is about; `null`: everybody. */
  user_id: string | null;
  /** The text. */
  value: string;
}

/** What a block is to hold. */
export interface CoreMemoryChange {
  /** Most characters of the text; absent: as it is, 2,000 at first. */
  limit?: number | null;
  /** The text. */
  value: string;
}

/** What a block is about. */
export type CoreMemoryLabel = "human" | "persona" | "system";

/** A new API key with its secret. */
export type CreatedApiKey = ApiKey & {
  /** The key itself, shown once. */
  api_key: string;
};

/** Anything else, on a named channel. */
export interface CustomEvent {
  /** The agent that the event is about. At most 256 bytes of UTF-8. */
  agent_id?: string;
  /** Names separated by single slashes, without `*`. At most 200 bytes of UTF-8. */
  channel: string;
  /** Any JSON. */
  data: unknown;
  /** The event's cursor. */
  id: string;
  /** When it happened. Defaults to the time of receipt. */
  timestamp: string;
  type: "custom";
  /** The user who may see the event. If absent, everyone in the organization may. At most 256 bytes of UTF-8. */
  user_id?: string;
}

/** What every answer that is no success says. */
export interface Error {
  /** For programs. */
  code: "BAD_REQUEST" | "CONFLICT" | "FORBIDDEN" | "INTERNAL_ERROR" | "METHOD_NOT_ALLOWED" | "NOT_FOUND" | "NOT_IMPLEMENTED" | "PAYLOAD_TOO_LARGE" | "QUOTA_EXCEEDED" | "UNAUTHORIZED" | "UNAVAILABLE" | "VALIDATION_ERROR";
  /** More for a program; `null` unless said. */
  details: Record<string, unknown> | null;
  /** For people; may change. */
  message: string;
  /** Now. */
  timestamp: string;
}

/** Something failed. */
export interface ErrorEvent {
  /** The agent that the event is about. At most 256 bytes of UTF-8. */
  agent_id?: string;
  /** A code for programs. At most 64 bytes of UTF-8. */
  code: string;
  /** The event's cursor. */
  id: string;
  /** A message for people. */
  message: string;
  /** The stream that failed. At most 256 bytes of UTF-8. */
  request_id?: string;
  /** When it happened. Defaults to the time of receipt. */
  timestamp: string;
  type: "error";
  /** The user who may see the event. If absent, everyone in the organization may. At most 256 bytes of UTF-8. */
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

/** What follows the events of an answer. */
export interface EventPage {
  /** Whether there is nothing more by now. */
  caught_up: boolean;
  /** In order. */
  data: Event[];
  gap: Gap | null;
  /** Where the next question goes on: past all that was looked at, whether it matched or not. */
  next_cursor: string;
  success: true;
}

/** What was found. */
export interface FoundMemories {
  /** Whether there are more behind these. */
  has_more: boolean;
  /** How many were asked for. */
  limit: number;
  /** How many were passed over. */
  offset: number;
  /** Best first. */
  results: MemoryHit[];
  /** How many there are. */
  total: number;
}

/** Events that are missing: fetch the state anew. */
export interface Gap {
  /** The cursor or time that was asked for, cut to 64 bytes. */
  after: string;
  /** `trimmed`: from the oldest event that is kept, or the first after stored events that are damaged; `unknown_cursor`: from now on. */
  reason: "trimmed" | "lagged" | "unknown_cursor";
  /** Where it goes on. */
  resumes_at: string;
}

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

/** How the daemon is. */
export interface Health {
  /** What it is made of. */
  checks: HealthChecks;
  /** `healthy`, `degraded` or `stopping`. */
  status: "healthy" | "degraded" | "stopping";
  /** Now. */
  timestamp: string;
  /** The daemon's version. */
  version: string;
}

/** What a daemon's health is made of. */
export interface HealthChecks {
  /** Whether it takes new connections. */
  accepting: boolean;
  /** `ok`, `no_space`, `reopening` or `read_only`. */
  store: "ok" | "no_space" | "reopening" | "read_only";
}

/** SSE: keep this cursor. */
export interface HeartbeatFrame {
  /** The position. */
  cursor: string;
  /** Now. */
  timestamp: string;
  type: "heartbeat";
}

/** Who would enter. */
export interface Login {
  /** The user's. */
  email: string;
  /** The user's. */
  organization_id: string;
  /** The user's. At most 1024 bytes of UTF-8. */
  password: string;
}

/** A memory as clients see it. */
export interface Memory {
  /** Which agent's. */
  agent_id: string | null;
  /** The text. */
  content: string;
  /** When it was made. */
  created_at: string;
  /** `memory-<uuid7>`. */
  id: string;
  /** 0 to 1. */
  importance: number;
  /** What kind it is. */
  memory_type: MemoryType;
  /** Free data. */
  metadata: Record<string, unknown> | null;
  /** Its organization. */
  organization_id: string;
  scope: MemoryScope | null;
  /** When it was last changed. */
  updated_at: string;
  /** Which user's; `null`: everybody's. */
  user_id: string | null;
  /** Counts its changes. */
  version: number;
}

/** What is to be said of a memory: a field that is absent stays as it is, `null` makes it what it is where nothing is said. */
export interface MemoryChange {
  /** The text. */
  content?: string | null;
  /** 0 to 1. */
  importance?: number | null;
  memory_type?: MemoryType | null;
  /** Free data. */
  metadata?: Record<string, unknown> | null;
}

/** A memory that was found, and how well it fits, 0 to 1. */
export type MemoryHit = Memory & {
  /** How well it fits, 0 to 1. */
  score: number;
};

/** Ids of memories. */
export interface MemoryIds {
  /** Of memories. */
  ids: string[];
}

/** What is looked for. */
export interface MemoryQuery {
  /** Only this agent's. */
  agent_id?: string | null;
  /** How many at most; 10 where nothing is said. */
  limit?: number | null;
  /** Only those made in so many days. */
  max_age_days?: number | null;
  memory_type?: MemoryType | null;
  /** Only of this importance or more. */
  min_importance?: number | null;
  /** How many are passed over. */
  offset?: number | null;
  /** The last word stands for all that begin with it. */
  prefix?: boolean;
  /** Words, any of which a memory holds; one with a `*` behind it stands for all that begin with it. */
  query: string;
  /** Only with this score or more, 0 to 1. */
  threshold?: number | null;
  /** Only this user's. */
  user_id?: string | null;
}

/** What a memory belongs to. */
export type MemoryScope = "agent" | "user" | "session" | "run" | "organization" | "global";

/** What kind of memory it is. */
export type MemoryType = "Factual" | "Episodic" | "Procedural" | "Semantic" | "Working" | "Core" | "Resource" | "Knowledge" | "Contextual";

/** A memory was created, changed or deleted. */
export interface MemoryUpdateEvent {
  /** The agent that the event is about. At most 256 bytes of UTF-8. */
  agent_id: string;
  /** The event's cursor. */
  id: string;
  /** The memory. At most 256 bytes of UTF-8. */
  memory_id: string;
  /** Any JSON object. At most 8192 bytes. */
  metadata?: Record<string, unknown>;
  /** What happened to the memory. */
  operation: "created" | "updated" | "deleted";
  /** When it happened. Defaults to the time of receipt. */
  timestamp: string;
  type: "memory_update";
  /** The user who may see the event. If absent, everyone in the organization may. At most 256 bytes of UTF-8. */
  user_id?: string;
}

/** A version of a memory. */
export interface MemoryVersion {
  /** The text. */
  content: string;
  /** 0 to 1. */
  importance: number;
  /** What kind it was. */
  memory_type: MemoryType;
  /** Free data. */
  metadata: Record<string, unknown> | null;
  /** What made it. */
  operation: string;
  /** When it was made. */
  updated_at: string;
  /** Which. */
  version: number;
}

/** A message as clients see it. */
export interface Message {
  /** To or from which agent. */
  agent_id: string;
  /** The text. */
  content: string;
  /** When it was made. */
  created_at: string;
  /** `msg-<uuid7>`. */
  id: string;
  /** Free data. */
  metadata: Record<string, unknown> | null;
  /** The model that wrote it. */
  model: string | null;
  /** Its organization. */
  organization_id: string;
  /** Who speaks. */
  role: MessageRole;
  /** JSON of the platform's. */
  tool_calls: unknown;
  /** Whose conversation it is; `null`: everybody's. */
  user_id: string | null;
}

/** A chat message. */
export interface MessageEvent {
  /** The agent that the event is about. At most 256 bytes of UTF-8. */
  agent_id: string;
  /** The text of the message. */
  content: string;
  /** The event's cursor. */
  id: string;
  /** The message's id. If you set it, the message is published only once within 24 hours. At most 256 bytes of UTF-8. */
  message_id: string;
  /** Any JSON object. At most 8192 bytes. */
  metadata?: Record<string, unknown>;
  /** The author's role. */
  role?: "user" | "assistant" | "system" | "tool";
  /** When it happened. Defaults to the time of receipt. */
  timestamp: string;
  type: "message";
  /** The user who may see the event. If absent, everyone in the organization may. At most 256 bytes of UTF-8. */
  user_id?: string;
}

/** Who speaks. */
export type MessageRole = "user" | "assistant" | "system" | "tool";

/** A token that was minted. */
export interface MintedToken {
  /** When it ends. */
  expires_at: string;
  /** Names it, for `DELETE /api/v1/tokens/{jti}`. */
  jti: string;
  /** The JWT, shown once. */
  token: string;
}

/** What is said to an agent. */
export interface NewAgentMessage {
  /** Images that belong to it. */
  image_uris?: string[] | null;
  /** Whether the platform is to remember it; like the next two it goes into the message's metadata, for agents to see. */
  memorizing?: boolean | null;
  /** The text. At most 49152 bytes of UTF-8. */
  message: string;
  /** Free data. */
  metadata?: Record<string, unknown> | null;
  /** Whose conversation it is; the caller's own if absent. At most 256 bytes of UTF-8. */
  user_id?: string | null;
  /** Recordings that belong to it. */
  voice_files?: string[] | null;
}

/** An agent's status, or what became of the agent. */
export interface NewAgentUpdateEvent {
  /** The agent that the event is about. At most 256 bytes of UTF-8. */
  agent_id: string;
  /** Why the agent failed. */
  error_message?: string;
  /** Any JSON object. At most 8192 bytes. */
  metadata?: Record<string, unknown>;
  /** The agent's status. */
  status: "idle" | "thinking" | "executing" | "waiting" | "error" | "created" | "deleted";
  /** When it happened. Defaults to the time of receipt. */
  timestamp?: string;
  type: "agent_update";
}

/** An API key to be made; what is absent is as wide as the caller's own. */
export interface NewApiKey {
  /** The agents it may touch. */
  agents?: string[] | null;
  /** The channels it may touch; `a/*` is everything below `a/`. */
  channels?: string[] | null;
  /** As long as the caller's own credential if absent. */
  expires_in_seconds?: number | null;
  /** For people. At most 256 bytes of UTF-8. */
  name?: string;
  /** The operator alone may name another organization than its own. */
  org_id?: string | null;
  /** What it may do; required. `*` is all that an organization's key can have. */
  scopes: ("subscribe" | "publish" | "write" | "agents" | "publish:org" | "read:all" | "mint" | "manage" | "*")[];
  /** The kinds of event it may touch. */
  types?: ("message" | "agent_update" | "memory_update" | "stream_chunk" | "error" | "custom")[] | null;
}

/** Anything else, on a named channel. */
export interface NewCustomEvent {
  /** The agent that the event is about. At most 256 bytes of UTF-8. */
  agent_id?: string;
  /** Names separated by single slashes, without `*`. At most 200 bytes of UTF-8. */
  channel: string;
  /** Any JSON. */
  data: unknown;
  /** When it happened. Defaults to the time of receipt. */
  timestamp?: string;
  type: "custom";
  /** The user who may see the event. If absent, everyone in the organization may. At most 256 bytes of UTF-8. */
  user_id?: string;
}

/** Something failed. */
export interface NewErrorEvent {
  /** The agent that the event is about. At most 256 bytes of UTF-8. */
  agent_id?: string;
  /** A code for programs. At most 64 bytes of UTF-8. */
  code: string;
  /** A message for people. */
  message: string;
  /** The stream that failed. At most 256 bytes of UTF-8. */
  request_id?: string;
  /** When it happened. Defaults to the time of receipt. */
  timestamp?: string;
  type: "error";
  /** The user who may see the event. If absent, everyone in the organization may. At most 256 bytes of UTF-8. */
  user_id?: string;
}

/** An event, as publishers send it. Told apart by `type`. */
export type NewEvent = NewMessageEvent | NewAgentUpdateEvent | NewMemoryUpdateEvent | NewStreamChunkEvent | NewErrorEvent | NewCustomEvent;

/** One event, or a batch. */
export type NewEventOrBatch = NewEvent | NewEvents;

/** A batch: all of it is accepted, or none. */
export type NewEvents = NewEvent[];

/** Memories to be made together. */
export interface NewMemories {
  /** Each as it would be by itself. */
  memories: NewMemory[];
}

/** A memory to be made. */
export interface NewMemory {
  /** Which agent's, if any's; it must exist. At most 256 bytes of UTF-8. */
  agent_id?: string | null;
  /** The text. */
  content: string;
  /** 0 to 1; absent: 0.5. */
  importance?: number | null;
  memory_type?: MemoryType | null;
  /** A JSON object. */
  metadata?: Record<string, unknown> | null;
  scope?: MemoryScope | null;
  /** Absent: the caller's own, or everybody's where the caller may speak for the organization. At most 256 bytes of UTF-8. */
  user_id?: string | null;
}

/** A memory was created, changed or deleted. */
export interface NewMemoryUpdateEvent {
  /** The agent that the event is about. At most 256 bytes of UTF-8. */
  agent_id: string;
  /** The memory. At most 256 bytes of UTF-8. */
  memory_id: string;
  /** Any JSON object. At most 8192 bytes. */
  metadata?: Record<string, unknown>;
  /** What happened to the memory. */
  operation: "created" | "updated" | "deleted";
  /** When it happened. Defaults to the time of receipt. */
  timestamp?: string;
  type: "memory_update";
  /** The user who may see the event. If absent, everyone in the organization may. At most 256 bytes of UTF-8. */
  user_id?: string;
}

/** A message to be made. */
export interface NewMessage {
  /** Which agent's; from the path where that names it. At most 256 bytes of UTF-8. */
  agent_id: string;
  /** The text. At most 49152 bytes of UTF-8. */
  content?: string;
  /** A JSON object. */
  metadata?: Record<string, unknown> | null;
  /** The model that wrote it. At most 255 bytes of UTF-8. */
  model?: string | null;
  /** Absent: user. */
  role?: MessageRole;
  /** The text, as older clients name it. At most 49152 bytes of UTF-8. */
  text?: string;
  /** Any JSON. */
  tool_calls?: unknown;
  /** Absent: the caller's own. At most 256 bytes of UTF-8. */
  user_id?: string | null;
}

/** A chat message. */
export interface NewMessageEvent {
  /** The agent that the event is about. At most 256 bytes of UTF-8. */
  agent_id: string;
  /** The text of the message. */
  content: string;
  /** The message's id. If you set it, the message is published only once within 24 hours. At most 256 bytes of UTF-8. */
  message_id?: string;
  /** Any JSON object. At most 8192 bytes. */
  metadata?: Record<string, unknown>;
  /** The author's role. */
  role?: "user" | "assistant" | "system" | "tool";
  /** When it happened. Defaults to the time of receipt. */
  timestamp?: string;
  type: "message";
  /** The user who may see the event. If absent, everyone in the organization may. At most 256 bytes of UTF-8. */
  user_id?: string;
}

/** An organization to be made. */
export interface NewOrganization {
  /** For tokens that are issued elsewhere; made if absent. */
  id?: string | null;
  /** For people. At most 256 bytes of UTF-8. */
  name?: string | null;
  /** Whether to tell which of its users are connected; not if absent. */
  presence?: boolean | null;
  visibility?: Visibility | null;
}

/** A piece of an LLM's output. */
export interface NewStreamChunkEvent {
  /** The agent that the event is about. At most 256 bytes of UTF-8. */
  agent_id?: string;
  /** The next piece of text. May be empty. */
  chunk: string;
  /** The index of the first of several merged chunks; `index` is that of the last. */
  first_index?: number;
  /** The chunk's position in the stream. */
  index?: number;
  /** True for the last chunk of the stream. */
  is_final: boolean;
  /** Any JSON object. At most 8192 bytes. */
  metadata?: Record<string, unknown>;
  /** The stream. At most 256 bytes of UTF-8. */
  request_id: string;
  /** When it happened. Defaults to the time of receipt. */
  timestamp?: string;
  type: "stream_chunk";
  /** The user who may see the event. If absent, everyone in the organization may. At most 256 bytes of UTF-8. */
  user_id?: string;
}

/** Which ticket is wanted. */
export interface NewTicket {
  /** One that lasts: for SSE and polling, bound to the request's `Origin`. Else it is spent at its first use. */
  reconnect?: boolean;
  /** The user it stands for, as a token of role `user` would; the caller if absent. Takes the scope `mint`. At most 256 bytes of UTF-8. */
  sub?: string | null;
}

/** A token to be minted; what is absent is as wide as the caller's own. */
export interface NewToken {
  /** The agents it may touch. */
  agents?: string[] | null;
  /** The channels it may touch; `a/*` is everything below `a/`. */
  channels?: string[] | null;
  /** A day if absent, or as long as the caller's own credential. */
  expires_in_seconds?: number | null;
  /** The operator alone may name another organization than its own. */
  org_id?: string | null;
  /** Stand for scopes where none are named; neither roles nor scopes: `user`. */
  roles?: ("admin" | "user" | "viewer" | "readonly")[];
  /** What it may do; those of its roles if absent. */
  scopes?: ("subscribe" | "publish" | "write" | "agents" | "publish:org" | "read:all" | "mint" | "manage" | "*")[] | null;
  /** The user it stands for. At most 256 bytes of UTF-8. */
  sub: string;
  /** The kinds of event it may touch. */
  types?: ("message" | "agent_update" | "memory_update" | "stream_chunk" | "error" | "custom")[] | null;
}

/** A tool to be made. */
export type NewTool = ToolChange & {
  name: string;
};

/** A user to be registered. */
export interface NewUser {
  /** Theirs alone within the organization. At most 254 bytes of UTF-8. */
  email: string;
  /** At least 2 characters. At most 255 bytes of UTF-8. */
  name: string;
  /** The caller's own, or the path's, if absent. */
  organization_id?: string | null;
  /** At least 8 characters. At most 1024 bytes of UTF-8. */
  password: string;
  /** `user` if absent; no wider than the caller's own rights. */
  role?: UserRole;
  /** For the platform. At most 255 bytes of UTF-8. */
  timezone?: string | null;
}

/** Memories to be deleted together, by their ids. */
export type OldMemories = string[] | MemoryIds;

/** An organization as clients see it. */
export interface Organization {
  /** When it was made. */
  created_at: string;
  /** Its id, part of no other organization's. */
  id: string;
  /** For people. */
  name: string;
  /** Whether it tells which of its users are connected. */
  presence: boolean;
  /** Who sees events that carry a `user_id`. */
  visibility: Visibility;
}

/** What is to change of an organization; what is absent stays. */
export interface OrganizationChange {
  /** For people. At most 256 bytes of UTF-8. */
  name?: string | null;
  /** Whether to tell which of its users are connected. */
  presence?: boolean | null;
  visibility?: Visibility | null;
}

/** A user's password, and the one it is to be. */
export interface PasswordChange {
  /** The present one. At most 1024 bytes of UTF-8. */
  current_password: string;
  /** At least 8 characters. At most 1024 bytes of UTF-8. */
  new_password: string;
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

/** A page of those who are present. */
export interface PresencePage {
  /** In the order of `sub`. */
  data: Present[];
  /** Whether the organization has presence switched on; nobody is listed otherwise. */
  enabled: boolean;
  /** Where the next page begins; `null`: this was the last. */
  next_cursor: string | null;
  success: true;
}

/** A user who is present. */
export interface Present {
  /** WebSocket and SSE connections; 0 while the grace time runs. */
  connections: number;
  /** Since when the user is present. */
  since: string;
  /** Always `online`: who is not is not listed. */
  status: string;
  /** The user. */
  sub: string;
}

/** Publishes one event or a batch; answered by `ack` or `error`. */
export interface PublishFrame {
  /** `memory`: the ack need not wait for the disk. */
  ack?: "memory" | "durable" | "" | null;
  event?: NewEvent;
  events?: NewEvent[];
  ref?: Ref | null;
  type: "publish";
}

/** The ids of what was published, in the order it was given. */
export interface Published {
  ids: string[];
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

/** What a member is to be. */
export interface RoleChange {
  /** No wider than the caller's own rights. */
  role: UserRole;
}

/** A message to an agent that was kept. */
export interface SentAgentMessage {
  /** The message's id. */
  message_id: string;
  /** How long keeping it took. */
  processing_time_ms: number;
  /** What the agent answers comes as events: nothing here runs agents. */
  response: string | null;
}

/** What the daemon tells one connection and does not log. Told apart by `type`. */
export type ServerFrame = ReadyFrame | GapFrame | CaughtUpFrame | HeartbeatFrame | PingFrame | PongFrame | AckFrame | CancelFrame | ErrorFrame;

/** A token and whose it is. */
export interface Session {
  /** When it ends. */
  expires_at: string;
  /** The JWT. */
  token: string;
  /** Whose it is. */
  user: User;
}

/** A session twice: in the envelope, and beside it, where AgentMem's clients read it. */
export interface SessionAnswer {
  /** The session. */
  data: Session;
  /** When it ends. */
  expires_at: string;
  success: true;
  /** The JWT. */
  token: string;
  /** Whose it is. */
  user: User;
}

/** An organization in numbers. */
export interface Stats {
  /** Open now. */
  connections: number;
  /** Remembered `Idempotency-Key`s and `message_id`s. */
  idempotency_rows: number;
  /** After the newest. */
  newest_cursor: string;
  /** Before the oldest event that is kept. */
  oldest_cursor: string;
  /** Which. */
  org_id: string;
  /** How long live deliveries took from publishing to the end of the write, since it last had no subscriber. */
  publish_to_send: Times;
  /** Bytes of what is kept besides events: resources with their indexes, idempotency rows, credentials. */
  row_bytes: number;
  /** Their bytes. */
  stored_bytes: number;
  /** Events that are kept. */
  stored_events: number;
  /** Resources that are kept, memories' versions included. */
  stored_rows: number;
  /** Events that are numbered and not yet on disk. */
  uncommitted_events: number;
}

/** A piece of an LLM's output. */
export interface StreamChunkEvent {
  /** The agent that the event is about. At most 256 bytes of UTF-8. */
  agent_id?: string;
  /** The next piece of text. May be empty. */
  chunk: string;
  /** The index of the first of several merged chunks; `index` is that of the last. */
  first_index?: number;
  /** The event's cursor. */
  id: string;
  /** The chunk's position in the stream. */
  index?: number;
  /** True for the last chunk of the stream. */
  is_final: boolean;
  /** Any JSON object. At most 8192 bytes. */
  metadata?: Record<string, unknown>;
  /** The stream. At most 256 bytes of UTF-8. */
  request_id: string;
  /** When it happened. Defaults to the time of receipt. */
  timestamp: string;
  type: "stream_chunk";
  /** The user who may see the event. If absent, everyone in the organization may. At most 256 bytes of UTF-8. */
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

/** A ticket, for a browser's URL. */
export interface Ticket {
  /** When it opens nothing any more. */
  expires_at: string;
  /** For `?ticket=`. */
  ticket: string;
}

/** How long something took. */
export interface Times {
  /** Four to an octave; those that are not empty. */
  buckets: TimesBucket[];
  /** How often it happened. */
  count: number;
  /** Microseconds that half of them are under. */
  p50_us: number;
  /** Microseconds that 99 of 100 are under. */
  p99_us: number;
}

/** How many took so long. */
export interface TimesBucket {
  /** How many. */
  count: number;
  /** Microseconds they are under; `null`: no bound. */
  under_us: number | null;
}

/** A tool as clients see it. */
export interface Tool {
  /** When it was made. */
  created_at: string;
  /** For people, and for models. */
  description: string | null;
  /** `tool-<uuid7>`. */
  id: string;
  /** What it takes. */
  json_schema: unknown;
  /** Free data. */
  metadata: Record<string, unknown> | null;
  /** What it is called. */
  name: string;
  /** Its organization. */
  organization_id: string;
  /** The user who may change it with the scope `write`; `null`: changing it takes `agents`. */
  owner: string | null;
  /** What it does. */
  source_code: string | null;
  /** A name the platform gives a meaning. */
  source_type: string | null;
  /** In the order they were given, each once. */
  tags: string[];
  /** When it was last changed. */
  updated_at: string;
}

/** What is to be said of a tool: a field that is absent stays as it is, `null` clears it. */
export interface ToolChange {
  /** For people, and for models. At most 16384 bytes of UTF-8. */
  description?: string | null;
  /** What it takes. */
  json_schema?: unknown;
  /** Free data. */
  metadata?: Record<string, unknown> | null;
  /** Not blank; required of a new one. At most 255 bytes of UTF-8. */
  name?: string | null;
  /**
   * The user who may change it; absent in a new tool: the caller. Another than oneself, or `null` for nobody, takes the scope
   * `agents`. At most 256 bytes of UTF-8.
   */
  owner?: string | null;
  /** What it does. At most 32768 bytes of UTF-8. */
  source_code?: string | null;
  /** A name the platform gives a meaning. At most 255 bytes of UTF-8. */
  source_type?: string | null;
  /** Without commas. */
  tags?: string[] | null;
}

/** A user as clients see them. */
export interface User {
  /** When they were registered. */
  created_at: string;
  /** Whether they are kept out for now. */
  disabled: boolean;
  /** In lower case; no other user's of the organization. */
  email: string;
  /** `user-<uuid7>`: the `sub` of their tokens. */
  id: string;
  /** For people. */
  name: string;
  /** Their organization. */
  organization_id: string;
  /** What they may do. */
  role: UserRole;
  /** For the platform. */
  timezone: string | null;
  /** When they were last changed. */
  updated_at: string;
}

/** What users say of themselves: a field that is absent stays as it is, `null` clears it. */
export interface UserChange {
  /** At least 2 characters. At most 255 bytes of UTF-8. */
  name?: string | null;
  /** For the platform. At most 255 bytes of UTF-8. */
  timezone?: string | null;
}

/** Whether a user is kept out. */
export interface UserDisabled {
  /** Whether its tokens are refused. */
  disabled: boolean;
  /** The user. */
  sub: string;
}

/** Whether a user is kept out. */
export interface UserDisabledChange {
  /** Whether its tokens are refused and its connections closed. */
  disabled: boolean;
}

/** Role of a user in an organization. */
export type UserRole = "admin" | "user" | "viewer";

/** Who sees events that have a `user_id`. */
export type Visibility = "private" | "org";

/**
 * Types of the daemon's documents, written by scripts/generate.mjs: change those, not this.
 */
/* eslint-disable */

/** The frame was accepted. A publish is on disk, unless it requested `memory`. */
export interface AckFrame {
  /** Ids in the order of the events. */
  ids: string[];
  /** For chunks of a stream: the index of its next chunk. */
  next_index?: number;
  /** `null` if the frame had none. */
  ref: Ref | null;
  type: "ack";
}

/** An agent. */
export interface Agent {
  /** Type of the agent, as the platform defines it. */
  agent_type: string | null;
  /** Time of creation. */
  created_at: string;
  /** Description for people. */
  description: string | null;
  /** Embedding settings, as the platform defines them. */
  embedding_config: unknown;
  /** Reason of the failure, if the state is `error`. */
  error_message: string | null;
  /** Id: `agent-<uuid7>`. */
  id: string;
  /** Time when the state was last set. */
  last_active_at: string | null;
  /** Model settings, as the platform defines them. */
  llm_config: unknown;
  /** Free data. */
  metadata: Record<string, unknown> | null;
  /** Name for people. */
  name: string | null;
  /** Organization of the agent. */
  organization_id: string;
  /**
   * User who may change the agent with the scope `write`. `null` means that only the scope `agents` can
   * change it.
   */
  owner: string | null;
  /** Current state. */
  state: AgentStatus;
  /** System prompt. */
  system: string | null;
  /** Tool rules, as the platform defines them. */
  tool_rules: unknown;
  /** Time of the last change. */
  updated_at: string;
}

/** A change of an agent. A field that is left out stays as it is; `null` clears it. */
export interface AgentChange {
  /** Type of the agent, as the platform defines it. At most 255 bytes of UTF-8. */
  agent_type?: string | null;
  /** Description for people. At most 16384 bytes of UTF-8. */
  description?: string | null;
  /** Embedding settings, as the platform defines them. */
  embedding_config?: unknown;
  /** Model settings, as the platform defines them. */
  llm_config?: unknown;
  /** Free data. */
  metadata?: Record<string, unknown> | null;
  /** Name for people, not blank. At most 255 bytes of UTF-8. */
  name?: string | null;
  /**
   * User who may change the agent. A new agent belongs to the caller if this is left out. Only the scope
   * `agents` allows another user, or `null` for none. At most 256 bytes of UTF-8.
   */
  owner?: string | null;
  /** System prompt. At most 16384 bytes of UTF-8. */
  system?: string | null;
  /** Tool rules, as the platform defines them. */
  tool_rules?: unknown;
}

/** State of an agent. */
export interface AgentState {
  /** Id of the agent. */
  agent_id: string;
  /** Reason of the failure, if the state is `error`. */
  error_message: string | null;
  /** Time when the state was last set. */
  last_active_at: string | null;
  /** Current state. */
  state: AgentStatus;
}

/** New state of an agent. */
export interface AgentStateChange {
  /** Reason of the failure. Stored only with the state `error`. At most 16384 bytes of UTF-8. */
  error_message?: string | null;
  /** New state. */
  state: AgentStatus;
}

/** State of an agent. */
export type AgentStatus = "idle" | "thinking" | "executing" | "waiting" | "error";

/** An agent was created, changed or deleted, or has a new status. */
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

/** An API key, without its secret. */
export interface ApiKey {
  /** Agents that the key is limited to; `null` means all. */
  agents: string[] | null;
  /** Channels that the key is limited to; `null` means all. */
  channels: string[] | null;
  /** Time of creation. */
  created_at: string;
  /** Time of expiry; `null` means never. */
  expires_at: string | null;
  /** Id of the key. It is not secret. */
  key_id: string;
  /** Time of last use. */
  last_used_at: string | null;
  /** Name for people. */
  name: string;
  /** Organization of the key. */
  org_id: string | null;
  /** Scopes of the key. */
  scopes: string[];
  /** Event types that the key is limited to; `null` means all. */
  types: string[] | null;
}

/** Appends one chunk or several to a stream; answered by `ack` or `error`. Further frames need not wait for it. */
export interface AppendFrame {
  /** The text. */
  chunk?: string;
  /** Texts, each with a part of its own if needed. */
  chunks?: (string | {
    chunk: string;
    /** The part of the chunks. Without it they are text. */
    part?: Record<string, unknown> | null;
  })[];
  /** Number of the first chunk in the stream; the next one if left out. */
  index?: number | null;
  /** The stream is complete after these chunks. */
  is_final?: boolean | null;
  /** The part of the chunks. Without it they are text. */
  part?: Record<string, unknown> | null;
  /** The token from the answer that opened the stream. */
  producer_token: string;
  ref?: Ref | null;
  /** The stream. */
  request_id: string;
  type: "append";
}

/** What was appended. */
export interface AppendedChunks {
  /** Always `true`: the chunks are on disk. */
  durable: boolean;
  /** Ids of the events, without ignored retries. */
  ids: string[];
  /** Index of the next chunk. */
  next_index: number;
}

/** Renews the credential, for the same organization and `sub`; answered by `ack`. */
export interface AuthFrame {
  ref?: Ref | null;
  /** A JWT or an API key. */
  token: string;
  type: "auth";
}

/** Result of a batch. */
export interface Batch {
  /** Errors of the items that failed. */
  errors: BatchItemError[];
  /** Number of items that failed. */
  failed: number;
  /** Ids of the memories that were created or deleted. */
  results: string[];
  /** Number of items that succeeded. */
  successful: number;
}

/** Result of a batch, in the envelope, and repeated beside it for clients that do not read the envelope. */
export interface BatchAnswer {
  /** The result. */
  data: Batch;
  /** Errors of the items that failed. */
  errors: BatchItemError[];
  /** Number of items that failed. */
  failed: number;
  /** Ids of the memories that were created or deleted. */
  results: string[];
  success: true;
  /** Number of items that succeeded. */
  successful: number;
}

/** Error of one item. */
export interface BatchItemError {
  /** Error code, for programs; the same codes as in error responses. */
  code: string;
  /** More information for programs, or `null`. */
  details: unknown;
  /** Id of the item, if it had one. */
  id?: string | null;
  /** Index of the item, from 0. */
  index: number;
  /** Text for people. */
  message: string;
}

/** A request to the producer of this stream to stop. */
export interface CancelFrame {
  /** The stream. */
  request_id: string;
  type: "cancel";
}

/** The replay is complete. Sent once for each subscription with a position. */
export interface CaughtUpFrame {
  /** The position. */
  cursor: string;
  type: "caught_up";
}

/** Cancels a stream. */
export interface ClientCancelFrame {
  /** The reason for people, at most 1 KiB. */
  reason?: string | null;
  ref?: Ref | null;
  /** The stream. */
  request_id: string;
  type: "cancel";
}

/** A frame that a WebSocket client sends. `type` says which one it is. */
export type ClientFrame = SubscribeFrame | PublishFrame | AuthFrame | ClientPingFrame | ClientPongFrame | ClientCancelFrame | AppendFrame | FinishFrame | FailFrame;

/** Requests a `pong`. */
export interface ClientPingFrame {
  /** Ignored. */
  cursor?: unknown;
  ref?: Ref | null;
  /** Ignored. */
  timestamp?: unknown;
  type: "ping";
}

/** Answers the daemon's `ping`. */
export interface ClientPongFrame {
  /** Ignored. */
  cursor?: unknown;
  ref?: Ref | null;
  /** Ignored. */
  timestamp?: unknown;
  type: "pong";
}

/** The number of connections that were closed. */
export interface Closed {
  /** Number of connections that were closed. */
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

/** A block of core memory. */
export interface CoreMemoryBlock {
  /** Agent whose core memory the block is in. */
  agent_id: string;
  /** Time of creation. */
  created_at: string;
  /** Id: `block-<uuid7>`. It is the `memory_id` of the block's events. */
  id: string;
  /** Label of the block. */
  label: CoreMemoryLabel;
  /** Maximum length of the text, in characters. */
  limit: number;
  /** Organization of the block. */
  organization_id: string;
  /** Time of the last change. */
  updated_at: string;
  /** User that the block is about; `null` means all users. */
  user_id: string | null;
  /** Text of the block. */
  value: string;
}

/** New content of a block. */
export interface CoreMemoryChange {
  /**
   * Maximum length of the text, in characters. If left out, the limit stays as it is; a new block has
   * 2,000.
   */
  limit?: number | null;
  /** Text of the block. */
  value: string;
}

/** Label of a block. */
export type CoreMemoryLabel = "human" | "persona" | "system";

/** A new API key with its secret. */
export type CreatedApiKey = ApiKey & {
  /** The secret key. It is shown only once. */
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

/** A stream that was read from its start has ended, and all of it was sent. */
export interface DoneFrame {
  /** Why the model stopped. */
  finish_reason?: string;
  /** The stream. */
  request_id: string;
  /** How it ended. */
  state: "completed" | "failed" | "cancelled" | "abandoned";
  type: "done";
  /** What the stream cost. */
  usage?: Record<string, unknown>;
}

/** Body of every error response. */
export interface Error {
  /** Error code, for programs. */
  code: "BAD_REQUEST" | "CONFLICT" | "FORBIDDEN" | "INTERNAL_ERROR" | "METHOD_NOT_ALLOWED" | "NOT_FOUND" | "NOT_IMPLEMENTED" | "PAYLOAD_TOO_LARGE" | "QUOTA_EXCEEDED" | "UNAUTHORIZED" | "UNAVAILABLE" | "VALIDATION_ERROR";
  /** More information for programs, or `null`. */
  details: Record<string, unknown> | null;
  /** Text for people. It may change. */
  message: string;
  /** Time of the response. */
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

/** A frame was refused. On SSE it is the last event, `event: closing`. Unlike an event of this type it has no `id`. */
export interface ErrorFrame {
  /** For programs. */
  code: string;
  /** More information, if any. */
  details?: Record<string, unknown>;
  /** For people. */
  message: string;
  ref?: Ref;
  type: "error";
}

/** An event as subscribers receive it. `type` says which one it is. */
export type Event = MessageEvent | AgentUpdateEvent | MemoryUpdateEvent | StreamChunkEvent | ErrorEvent | CustomEvent;

/** What follows the events of a response. */
export interface EventPage {
  /** True if there were no more events at the time of the response. */
  caught_up: boolean;
  /** Events in the order of their sequences. */
  data: Event[];
  gap: Gap | null;
  /** Cursor for the next request. It is after everything that was examined, whether it matched or not. */
  next_cursor: string;
  success: true;
}

/** Marks a stream as failed; answered by `ack` or `error`. */
export interface FailFrame {
  /** For programs. */
  code: string;
  /** For people. */
  message: string;
  /** The token from the answer that opened the stream. */
  producer_token: string;
  ref?: Ref | null;
  /** The stream. */
  request_id: string;
  type: "fail";
}

/** Completes a stream; answered by `ack` or `error`. */
export interface FinishFrame {
  /** Why the model stopped. */
  finish_reason?: string | null;
  /** The token from the answer that opened the stream. */
  producer_token: string;
  ref?: Ref | null;
  /** The stream. */
  request_id: string;
  type: "finish";
  /** What the stream cost. */
  usage?: Record<string, unknown> | null;
}

/** Result of a search. */
export interface FoundMemories {
  /** True if there are more results after these. */
  has_more: boolean;
  /** Maximum of results that was requested. */
  limit: number;
  /** Number of results that were skipped. */
  offset: number;
  /** Memories that match, best first. */
  results: MemoryHit[];
  /** Number of memories that match. */
  total: number;
}

/** Events that are missing: fetch the state again. */
export interface Gap {
  /** Cursor or time of the request, cut to 64 bytes. */
  after: string;
  /**
   * `trimmed`: continues from the oldest retained event, or after stored events that are damaged.
   * `unknown_cursor`: continues with new events.
   */
  reason: "trimmed" | "lagged" | "unknown_cursor";
  /** Position at which the events continue. */
  resumes_at: string;
}

/** Events are missing here. Fetch the state again. */
export interface GapFrame {
  /** The cursor or time of the request, cut to 64 bytes. */
  after: string;
  /** `trimmed`, `lagged`: continues from the oldest retained event; `unknown_cursor`: continues live. */
  reason: "trimmed" | "lagged" | "unknown_cursor";
  /** Position at which delivery continues. */
  resumes_at: string;
  type: "gap";
}

/** Health of the daemon. */
export interface Health {
  /** Individual checks. */
  checks: HealthChecks;
  /** `healthy`, `degraded` or `stopping`. */
  status: "healthy" | "degraded" | "stopping";
  /** Time of the response. */
  timestamp: string;
  /** Version of the daemon. */
  version: string;
}

/** Individual health checks. */
export interface HealthChecks {
  /** True if the daemon accepts new connections. */
  accepting: boolean;
  /** State of the store: `ok`, `no_space`, `reopening` or `read_only`. */
  store: "ok" | "no_space" | "reopening" | "read_only";
}

/** A heartbeat over SSE. Save its cursor. */
export interface HeartbeatFrame {
  /** The position. */
  cursor: string;
  /** Time of sending. */
  timestamp: string;
  type: "heartbeat";
}

/** Credentials of a user. */
export interface Login {
  /** Email of the user. */
  email: string;
  /** Organization of the user. */
  organization_id: string;
  /** Password of the user. At most 1024 bytes of UTF-8. */
  password: string;
}

/** A memory. */
export interface Memory {
  /** Agent that the memory belongs to; `null` if none. */
  agent_id: string | null;
  /** Text of the memory. */
  content: string;
  /** Time of creation. */
  created_at: string;
  /** Id: `memory-<uuid7>`. */
  id: string;
  /** Importance, 0 to 1. */
  importance: number;
  /** Type of the memory. */
  memory_type: MemoryType;
  /** Free data. */
  metadata: Record<string, unknown> | null;
  /** Organization of the memory. */
  organization_id: string;
  scope: MemoryScope | null;
  /** Time of the last change. */
  updated_at: string;
  /** User that the memory belongs to; `null` means all users. */
  user_id: string | null;
  /** Version; it increases with each change. */
  version: number;
}

/** A change of a memory. A field that is left out stays as it is; `null` resets it to its default. */
export interface MemoryChange {
  /** Text of the memory. */
  content?: string | null;
  /** Importance, 0 to 1. */
  importance?: number | null;
  memory_type?: MemoryType | null;
  /** Free data. */
  metadata?: Record<string, unknown> | null;
}

/** A memory that matches, with its score. */
export type MemoryHit = Memory & {
  /** Score, 0 to 1. A higher score is a better match. */
  score: number;
};

/** Ids of memories. */
export interface MemoryIds {
  /** Ids of the memories. */
  ids: string[];
}

/** A search query. */
export interface MemoryQuery {
  /** Only memories of this agent. */
  agent_id?: string | null;
  /** Maximum of results; 10 if left out. */
  limit?: number | null;
  /** Only memories created in the last so many days. */
  max_age_days?: number | null;
  memory_type?: MemoryType | null;
  /** Only memories of at least this importance. */
  min_importance?: number | null;
  /** Results to skip. */
  offset?: number | null;
  /** True if the last word matches every word that begins with it. */
  prefix?: boolean;
  /**
   * Words, at least one of which a memory contains. A word that ends with `*` matches every word that
   * begins with it.
   */
  query: string;
  /** Only memories with at least this score, 0 to 1. */
  threshold?: number | null;
  /** Only memories of this user. */
  user_id?: string | null;
}

/** What a memory belongs to. */
export type MemoryScope = "agent" | "user" | "session" | "run" | "organization" | "global";

/** Type of a memory. */
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
  /** Text of the memory. */
  content: string;
  /** Importance, 0 to 1. */
  importance: number;
  /** Type of the memory. */
  memory_type: MemoryType;
  /** Free data. */
  metadata: Record<string, unknown> | null;
  /** Operation that made the version: `created` or `updated`. */
  operation: string;
  /** Time of this version. */
  updated_at: string;
  /** Number of the version. */
  version: number;
}

/** A message. */
export interface Message {
  /** Agent that the message is to or from. */
  agent_id: string;
  /** Text of the message. */
  content: string;
  /** Time of creation. */
  created_at: string;
  /** Id: `msg-<uuid7>`. */
  id: string;
  /** Free data. */
  metadata: Record<string, unknown> | null;
  /** Model that wrote the message. */
  model: string | null;
  /** Organization of the message. */
  organization_id: string;
  /** Role of the sender. */
  role: MessageRole;
  /** Tool calls, as the platform defines them. */
  tool_calls: unknown;
  /** User whose conversation the message belongs to; `null` means all users. */
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

/** Role of the sender. */
export type MessageRole = "user" | "assistant" | "system" | "tool";

/** A new token. */
export interface MintedToken {
  /** Time of expiry. */
  expires_at: string;
  /** Id of the token, for `DELETE /api/v1/tokens/{jti}`. */
  jti: string;
  /** The JWT. It is shown only once. */
  token: string;
}

/** A message to an agent. */
export interface NewAgentMessage {
  /** URIs of images that belong to the message. */
  image_uris?: string[] | null;
  /**
   * Whether the platform should remember the message. Like the next two fields it is stored in the
   * message's metadata, where agents can read it.
   */
  memorizing?: boolean | null;
  /** Text of the message. At most 49152 bytes of UTF-8. */
  message: string;
  /** Free data. */
  metadata?: Record<string, unknown> | null;
  /** User whose conversation the message belongs to; the caller if absent. At most 256 bytes of UTF-8. */
  user_id?: string | null;
  /** Voice recordings that belong to the message. */
  voice_files?: string[] | null;
}

/** An agent was created, changed or deleted, or has a new status. */
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

/** An API key to create. A limit that is left out is the same as that of the caller's own credential. */
export interface NewApiKey {
  /** Agents that the key is limited to. */
  agents?: string[] | null;
  /** Channels that the key is limited to; `a/*` means every channel below `a/`. */
  channels?: string[] | null;
  /** Lifetime in seconds. If absent, the key expires when the caller's own credential does. */
  expires_in_seconds?: number | null;
  /** Name for people. At most 256 bytes of UTF-8. */
  name?: string;
  /** Organization of the key. Only the operator may name another organization than its own. */
  org_id?: string | null;
  /** Scopes of the key; required. `*` means every scope that a key of an organization can have. */
  scopes: ("subscribe" | "publish" | "write" | "agents" | "publish:org" | "read:all" | "mint" | "manage" | "*")[];
  /** Event types that the key is limited to. */
  types?: ("message" | "agent_update" | "memory_update" | "stream_chunk" | "error" | "custom")[] | null;
}

/** A chunk to append. */
export interface NewChunk {
  /** Text. At most 65536 bytes of UTF-8. */
  chunk: string;
  /**
   * Number of the chunk in the stream, from 0; the next one if left out. A lower one is a retry and is
   * ignored, a higher one is refused.
   */
  index?: number | null;
  /** True if the stream is complete with this chunk. */
  is_final?: boolean | null;
  /** Part that the chunk belongs to. Without it the chunk is text. */
  part?: {
    /** The id within the stream. Chunks with the same id belong together. At most 64 bytes of UTF-8. */
    id: string;
    /** A name, such as that of a tool. At most 256 bytes of UTF-8. */
    name?: string;
    /** The type of the part. */
    type: "text" | "reasoning" | "tool_input" | "tool_output" | "source" | "data";
  } | null;
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

/** An event as publishers send it. `type` says which one it is. */
export type NewEvent = NewMessageEvent | NewAgentUpdateEvent | NewMemoryUpdateEvent | NewStreamChunkEvent | NewErrorEvent | NewCustomEvent;

/** An event or a batch of events. */
export type NewEventOrBatch = NewEvent | NewEvents;

/** A batch. Either all of its events are accepted or none. */
export type NewEvents = NewEvent[];

/** Memories to create together. */
export interface NewMemories {
  /** Memories, each as for `POST /api/v1/memories`. */
  memories: NewMemory[];
}

/** A memory to create. */
export interface NewMemory {
  /** Agent that the memory belongs to, if any. It must exist. At most 256 bytes of UTF-8. */
  agent_id?: string | null;
  /** Text of the memory. */
  content: string;
  /** Importance, 0 to 1; 0.5 if left out. */
  importance?: number | null;
  memory_type?: MemoryType | null;
  /** A JSON object. */
  metadata?: Record<string, unknown> | null;
  scope?: MemoryScope | null;
  /**
   * User that the memory belongs to. If left out: the caller, or all users if the caller may write for the
   * whole organization. At most 256 bytes of UTF-8.
   */
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

/** A message to create. */
export interface NewMessage {
  /** Agent that the message is to or from. Left out where the path names it. At most 256 bytes of UTF-8. */
  agent_id: string;
  /** Text of the message. At most 49152 bytes of UTF-8. */
  content?: string;
  /** A JSON object. */
  metadata?: Record<string, unknown> | null;
  /** Model that wrote the message. At most 255 bytes of UTF-8. */
  model?: string | null;
  /** Role of the sender; `user` if left out. */
  role?: MessageRole;
  /** Text of the message, under the name that older clients use. At most 49152 bytes of UTF-8. */
  text?: string;
  /** Tool calls, as any JSON. */
  tool_calls?: unknown;
  /** User whose conversation the message belongs to; the caller if left out. At most 256 bytes of UTF-8. */
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

/** An organization to create. */
export interface NewOrganization {
  /** Id for tokens that another service issues; generated if absent. */
  id?: string | null;
  /** Name for people. At most 256 bytes of UTF-8. */
  name?: string | null;
  /** Whether to publish which users are connected; `false` if absent. */
  presence?: boolean | null;
  visibility?: Visibility | null;
}

/** A stream to open. */
export interface NewStream {
  /** Agent that speaks. At most 256 bytes of UTF-8. */
  agent_id?: string | null;
  /** True if the agent's status is to follow the stream: `thinking` while it is open, then `idle`. */
  agent_status?: boolean | null;
  /** Seconds for which the producer may be silent. 60 if left out. */
  lease_seconds?: number | null;
  /** Free data: a JSON object of at most 8 KiB. */
  metadata?: Record<string, unknown> | null;
  /** Id of the stream. Choose one that cannot be guessed. If left out, the daemon makes one. At most 256 bytes of UTF-8. */
  request_id?: string | null;
  /** True to take the stream over if it is open: the earlier producer is refused from then on. */
  takeover?: boolean | null;
  /**
   * User who may read the stream. If left out, it is the caller, or everyone in the organization for a
   * credential with `publish:org`. At most 256 bytes of UTF-8.
   */
  user_id?: string | null;
}

/** A chunk of an LLM's output. */
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
  /** The part of the answer that the chunk belongs to. A chunk without it is text. */
  part?: {
    /** The id within the stream. Chunks with the same id belong together. At most 64 bytes of UTF-8. */
    id: string;
    /** A name, such as that of a tool. At most 256 bytes of UTF-8. */
    name?: string;
    /** The type of the part. */
    type: "text" | "reasoning" | "tool_input" | "tool_output" | "source" | "data";
  };
  /** The stream. At most 256 bytes of UTF-8. */
  request_id: string;
  /** When it happened. Defaults to the time of receipt. */
  timestamp?: string;
  type: "stream_chunk";
  /** The user who may see the event. If absent, everyone in the organization may. At most 256 bytes of UTF-8. */
  user_id?: string;
}

/** A ticket to create. */
export interface NewTicket {
  /**
   * True for a reconnect ticket: it can be used repeatedly for SSE and polling, and only with the `Origin`
   * of this request. Otherwise the ticket can be used once.
   */
  reconnect?: boolean;
  /**
   * User that the ticket is for, with the rights of the role `user`; the caller if absent. Needs the scope
   * `mint`. At most 256 bytes of UTF-8.
   */
  sub?: string | null;
}

/** A token to issue. A limit that is left out is the same as that of the caller's own credential. */
export interface NewToken {
  /** Agents that the token is limited to. */
  agents?: string[] | null;
  /** Channels that the token is limited to; `a/*` means every channel below `a/`. */
  channels?: string[] | null;
  /** Lifetime in seconds. If absent, one day, but no longer than the caller's own credential. */
  expires_in_seconds?: number | null;
  /** Organization of the token. Only the operator may name another organization than its own. */
  org_id?: string | null;
  /** Roles, whose scopes apply if `scopes` is absent. If both are absent, the role is `user`. */
  roles?: ("admin" | "user" | "viewer" | "readonly")[];
  /** Scopes of the token; those of its roles if absent. */
  scopes?: ("subscribe" | "publish" | "write" | "agents" | "publish:org" | "read:all" | "mint" | "manage" | "*")[] | null;
  /** User that the token is for. At most 256 bytes of UTF-8. */
  sub: string;
  /** Event types that the token is limited to. */
  types?: ("message" | "agent_update" | "memory_update" | "stream_chunk" | "error" | "custom")[] | null;
}

/** A tool to create. */
export type NewTool = ToolChange & {
  name: string;
};

/** A user to register. */
export interface NewUser {
  /** Email. It must be unique in the organization. At most 254 bytes of UTF-8. */
  email: string;
  /** Name, at least 2 characters. At most 255 bytes of UTF-8. */
  name: string;
  /** Organization; the path's or the caller's own if absent. */
  organization_id?: string | null;
  /** Password, at least 8 characters. At most 1024 bytes of UTF-8. */
  password: string;
  /** Role; `user` if absent. It cannot exceed the caller's own rights. */
  role?: UserRole;
  /** Time zone, for the platform. At most 255 bytes of UTF-8. */
  timezone?: string | null;
}

/** Memories to delete together, by their ids. */
export type OldMemories = string[] | MemoryIds;

/** A stream that was opened. */
export interface OpenedStream {
  /** How often the stream was opened or taken over. */
  generation: number;
  /** Seconds for which the producer may be silent. */
  lease_seconds: number;
  /** Index of the next chunk. */
  next_index: number;
  /** Token for `X-Producer-Token`. It is shown only here. */
  producer_token: string;
  /** Id of the stream. */
  request_id: string;
}

/** An organization. */
export interface Organization {
  /** Time of creation. */
  created_at: string;
  /** Unique id of the organization. */
  id: string;
  /** Name for people. */
  name: string;
  /** True if the organization publishes which of its users are connected. */
  presence: boolean;
  /** Which users receive events that carry a `user_id`. */
  visibility: Visibility;
}

/** A change of an organization. Fields that are left out stay as they are. */
export interface OrganizationChange {
  /** Name for people. At most 256 bytes of UTF-8. */
  name?: string | null;
  /** Whether to publish which users are connected. */
  presence?: boolean | null;
  visibility?: Visibility | null;
}

/** The current and the new password of a user. */
export interface PasswordChange {
  /** Current password. At most 1024 bytes of UTF-8. */
  current_password: string;
  /** New password, at least 8 characters. At most 1024 bytes of UTF-8. */
  new_password: string;
}

/** A heartbeat over WebSocket. Save its cursor and answer with `pong`. */
export interface PingFrame {
  /** The position. */
  cursor: string;
  /** Time of sending. */
  timestamp: string;
  type: "ping";
}

/** The response to a client's `ping`. */
export interface PongFrame {
  /** Time of sending. */
  timestamp: string;
  type: "pong";
}

/** A page of users who are connected. */
export interface PresencePage {
  /** Users, in the order of `sub`. */
  data: Present[];
  /** Whether presence is enabled for the organization. If not, the list is empty. */
  enabled: boolean;
  /** Cursor of the next page; `null` on the last page. */
  next_cursor: string | null;
  success: true;
}

/** A user who is connected. */
export interface Present {
  /** Open WebSocket and SSE connections. 0 during the grace period after the last one has closed. */
  connections: number;
  /** Time since which the user has been connected. */
  since: string;
  /** Always `online`: other users are not listed. */
  status: string;
  /** The user. */
  sub: string;
}

/** Publishes one event or a batch; answered by `ack` or `error`. */
export interface PublishFrame {
  /** `memory`: acknowledges before the event is on disk. */
  ack?: "memory" | "durable" | "" | null;
  event?: NewEvent;
  events?: NewEvent[];
  ref?: Ref | null;
  type: "publish";
}

/** Ids of the published events, in the order they were sent. */
export interface Published {
  ids: string[];
}

/** A subscription has started. */
export interface ReadyFrame {
  /** Id of the connection in `/api/v1/connections`. */
  connection_id: string;
  /** Position at which the subscription starts. */
  cursor: string;
  /** Seconds between heartbeats. */
  heartbeat_seconds: number;
  ref?: Ref;
  /** Upper bound of the events before `caught_up`, without the filter. */
  replaying: number;
  /** True if the cursor was accepted and no event is missing. */
  resumed: boolean;
  type: "ready";
}

/** The client's reference for a frame, repeated in the response. */
export type Ref = number | string;

/** New role of a member. */
export interface RoleChange {
  /** New role. It cannot exceed the caller's own rights. */
  role: UserRole;
}

/** The stored message. */
export interface SentAgentMessage {
  /** Id of the message. */
  message_id: string;
  /** Time that storing the message took, in milliseconds. */
  processing_time_ms: number;
  /** Always `null`. The agent's answer is delivered as events, since the daemon does not run agents. */
  response: string | null;
}

/** A control frame of the daemon for one connection. It is not logged. `type` says which one it is. */
export type ServerFrame = ReadyFrame | GapFrame | CaughtUpFrame | HeartbeatFrame | PingFrame | PongFrame | AckFrame | CancelFrame | DoneFrame | ErrorFrame;

/** A token and its user. */
export interface Session {
  /** Time of expiry. */
  expires_at: string;
  /** The JWT. */
  token: string;
  /** User that the token is for. */
  user: User;
}

/** A session, in the envelope, and repeated beside it, where the clients of AgentMem read it. */
export interface SessionAnswer {
  /** The session. */
  data: Session;
  /** Time of expiry. */
  expires_at: string;
  success: true;
  /** The JWT. */
  token: string;
  /** User that the token is for. */
  user: User;
}

/** Statistics of an organization. */
export interface Stats {
  /** Connections that are open now. */
  connections: number;
  /** Stored `Idempotency-Key`s and `message_id`s. */
  idempotency_rows: number;
  /** Cursor after the newest event. */
  newest_cursor: string;
  /** Cursor before the oldest stored event. */
  oldest_cursor: string;
  /** Organization that the statistics are about. */
  org_id: string;
  /**
   * Time of live deliveries, from the publish to the end of the write. It restarts when the organization
   * has had no subscriber.
   */
  publish_to_send: Times;
  /** Bytes stored besides events: resources with their indexes, idempotency rows and credentials. */
  row_bytes: number;
  /** Bytes of the stored events. */
  stored_bytes: number;
  /** Events that are stored. */
  stored_events: number;
  /** Stored resources, including versions of memories. */
  stored_rows: number;
  /** Events that have a sequence and are not on disk yet. */
  uncommitted_events: number;
}

/** A stream. */
export interface Stream {
  /** Agent that speaks. */
  agent_id: string | null;
  /** Time of the end. */
  ended_at: string | null;
  error: StreamFailure | null;
  /** Why the model stopped. */
  finish_reason: string | null;
  /** How often the stream was opened or taken over. */
  generation: number;
  /** Seconds for which the producer may be silent. */
  lease_seconds: number;
  /** Free data. */
  metadata: Record<string, unknown> | null;
  /** Index of the next chunk; at the end, the number of chunks. */
  next_index: number;
  /** Time of the opening. */
  opened_at: string;
  /** Id of the stream. */
  request_id: string;
  /** State. All but `open` are for ever. */
  state: StreamState;
  /** Bytes of text. */
  text_bytes: number;
  /** What the stream cost. */
  usage: Record<string, unknown> | null;
  /** User who may read the stream. `null` means everyone in the organization. */
  user_id: string | null;
}

/** Why a stream is cancelled. */
export interface StreamCancel {
  /** Reason for people. At most 1024 bytes of UTF-8. */
  reason?: string | null;
}

/** A chunk of an LLM's output. */
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
  /** The part of the answer that the chunk belongs to. A chunk without it is text. */
  part?: {
    /** The id within the stream. Chunks with the same id belong together. At most 64 bytes of UTF-8. */
    id: string;
    /** A name, such as that of a tool. At most 256 bytes of UTF-8. */
    name?: string;
    /** The type of the part. */
    type: "text" | "reasoning" | "tool_input" | "tool_output" | "source" | "data";
  };
  /** The stream. At most 256 bytes of UTF-8. */
  request_id: string;
  /** When it happened. Defaults to the time of receipt. */
  timestamp: string;
  type: "stream_chunk";
  /** The user who may see the event. If absent, everyone in the organization may. At most 256 bytes of UTF-8. */
  user_id?: string;
}

/** The end of a stream that failed. */
export interface StreamFail {
  /** Code for programs. At most 64 bytes of UTF-8. */
  code: string;
  /** Message for people. At most 8192 bytes of UTF-8. */
  message: string;
}

/** Why a stream did not complete. */
export interface StreamFailure {
  /** Code for programs: `CANCELLED`, `ABANDONED`, or what the producer said. */
  code: string;
  /** Message for people. */
  message: string;
}

/** The end of a stream that is complete. */
export interface StreamFinish {
  /** Why the model stopped, such as `stop` or `length`. At most 64 bytes of UTF-8. */
  finish_reason?: string | null;
  /** What the stream cost: a JSON object of at most 8 KiB. */
  usage?: Record<string, unknown> | null;
}

/** Text of one part of a stream. */
export interface StreamPart {
  /** The part. `null` means plain text. */
  part: Record<string, unknown> | null;
  /** The text. */
  text: string;
}

/** The state of a stream. */
export type StreamState = "open" | "completed" | "failed" | "cancelled" | "abandoned";

/** A stream and its text so far. */
export type StreamWithText = Stream & {
  /** The byte at which `text` begins: that of the request, or the start of the character there. */
  offset: number;
  /** With `parts=all`: all text in order, by part, from the beginning. Otherwise `null`. */
  parts?: StreamPart[] | null;
  /** The text from `offset` on. `null` if it was removed or not asked for. */
  text?: string | null;
};

/** Replaces the filter, and the position if one is given; answered by `ready`. */
export interface SubscribeFrame {
  /** Agents, comma-separated, at most 100. Selects events with one of them. Empty counts as absent. Or an array, whose items may contain commas. */
  agent_id?: string | null | string[];
  /** Channels; `a/*` means every channel below `a/`, comma-separated, at most 100. Selects events with one of them. Empty counts as absent. Or an array, whose items may contain commas. */
  channel?: string | null | string[];
  /** Continues from the oldest retained event. */
  earliest?: boolean | null;
  /** Sends the streams of `request_id` from their first chunk, then `done` for each. */
  from_start?: boolean | null;
  /** Continues after this cursor. */
  last_event_id?: string | null;
  /** Which parts of streams: `text`, the default, or `all`. With `text`, chunks whose `part` is of another type are left out. */
  parts?: "text" | "all" | "" | null;
  ref?: Ref | null;
  /** Streams, comma-separated, at most 100. Selects events with one of them. Empty counts as absent. Or an array, whose items may contain commas. */
  request_id?: string | null | string[];
  /** Continues from this time. */
  since?: string | null;
  type: "subscribe";
  /** Event types, comma-separated, at most 100. Selects events with one of them. Empty counts as absent. Or an array, whose items may contain commas. */
  types?: string | null | string[];
  /** Users, comma-separated, at most 100. Selects events with one of them. Empty counts as absent. Or an array, whose items may contain commas. */
  user_id?: string | null | string[];
}

/** A ticket, for use in a URL. */
export interface Ticket {
  /** Time of expiry. */
  expires_at: string;
  /** Value for `?ticket=`. */
  ticket: string;
}

/** Distribution of durations. */
export interface Times {
  /** Histogram with four buckets for each doubling of the time. Empty buckets are left out. */
  buckets: TimesBucket[];
  /** Number of measurements. */
  count: number;
  /** Median, in microseconds. */
  p50_us: number;
  /** 99th percentile, in microseconds. */
  p99_us: number;
}

/** One bucket of the histogram. */
export interface TimesBucket {
  /** Number of measurements in this bucket. */
  count: number;
  /** Upper bound in microseconds; `null` means no bound. */
  under_us: number | null;
}

/** A tool. */
export interface Tool {
  /** Time of creation. */
  created_at: string;
  /** Description for people and models. */
  description: string | null;
  /** Id: `tool-<uuid7>`. */
  id: string;
  /** JSON schema of the tool's arguments. */
  json_schema: unknown;
  /** Free data. */
  metadata: Record<string, unknown> | null;
  /** Name of the tool. */
  name: string;
  /** Organization of the tool. */
  organization_id: string;
  /**
   * User who may change the tool with the scope `write`. `null` means that only the scope `agents` can
   * change it.
   */
  owner: string | null;
  /** Source code of the tool. */
  source_code: string | null;
  /** Type of the source code, as the platform defines it. */
  source_type: string | null;
  /** Tags, in the order they were given, without duplicates. */
  tags: string[];
  /** Time of the last change. */
  updated_at: string;
}

/** A change of a tool. A field that is left out stays as it is; `null` clears it. */
export interface ToolChange {
  /** Description for people and models. At most 16384 bytes of UTF-8. */
  description?: string | null;
  /** JSON schema of the tool's arguments. */
  json_schema?: unknown;
  /** Free data. */
  metadata?: Record<string, unknown> | null;
  /** Name, not blank. Required for a new tool. At most 255 bytes of UTF-8. */
  name?: string | null;
  /**
   * User who may change the tool. A new tool belongs to the caller if this is left out. Only the scope
   * `agents` allows another user, or `null` for none. At most 256 bytes of UTF-8.
   */
  owner?: string | null;
  /** Source code of the tool. At most 32768 bytes of UTF-8. */
  source_code?: string | null;
  /** Type of the source code, as the platform defines it. At most 255 bytes of UTF-8. */
  source_type?: string | null;
  /** Tags, without commas. */
  tags?: string[] | null;
}

/** A user. */
export interface User {
  /** Time of registration. */
  created_at: string;
  /** True if the user is disabled. */
  disabled: boolean;
  /** Email, in lower case. It is unique in the organization. */
  email: string;
  /** Id: `user-<uuid7>`. It is the `sub` of the user's tokens. */
  id: string;
  /** Name for people. */
  name: string;
  /** Organization of the user. */
  organization_id: string;
  /** Role, which determines what the user may do. */
  role: UserRole;
  /** Time zone, for the platform. */
  timezone: string | null;
  /** Time of the last change. */
  updated_at: string;
}

/** A change that users make to themselves. A field that is left out stays as it is; `null` clears it. */
export interface UserChange {
  /** Name, at least 2 characters. At most 255 bytes of UTF-8. */
  name?: string | null;
  /** Time zone, for the platform. At most 255 bytes of UTF-8. */
  timezone?: string | null;
}

/** Whether a user is disabled. */
export interface UserDisabled {
  /** True if the user's tokens are refused. */
  disabled: boolean;
  /** User that was changed. */
  sub: string;
}

/** Disables or enables a user. */
export interface UserDisabledChange {
  /** True to refuse the user's tokens and close the user's connections. */
  disabled: boolean;
}

/** Role of a user in an organization. */
export type UserRole = "admin" | "user" | "viewer";

/** Who sees events that have a `user_id`. */
export type Visibility = "private" | "org";

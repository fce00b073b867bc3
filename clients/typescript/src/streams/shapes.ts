/** What a stream looks like on the wire. */

export type StreamState = 'open' | 'completed' | 'failed' | 'cancelled' | 'abandoned';

/** The part of an answer that a chunk belongs to. Chunks with the same `id` belong together. */
export interface StreamPart {
  type: 'text' | 'reasoning' | 'tool_input' | 'tool_output' | 'source' | 'data';
  /** 1 to 64 bytes. */
  id: string;
  /** For example the name of a tool. At most 256 bytes. */
  name?: string | undefined;
}

/** Which parts a reader gets: text alone, or all. */
export type PartsWanted = 'text' | 'all';

/** Why a stream did not complete. */
export interface StreamFailure {
  /** What the producer said, or `CANCELLED`, or `ABANDONED`. */
  code: string;
  message: string;
}

/** A stream without its text. */
export interface StreamInfo {
  request_id: string;
  agent_id: string | null;
  user_id: string | null;
  metadata: Record<string, unknown> | null;
  state: StreamState;
  /** How often it was opened or taken over. */
  generation: number;
  /** The index that the next chunk gets. */
  next_index: number;
  /** Bytes of the text of all parts. */
  text_bytes: number;
  opened_at: string;
  ended_at: string | null;
  finish_reason: string | null;
  usage: Record<string, unknown> | null;
  error: StreamFailure | null;
  lease_seconds: number;
}

/** The text of one part. `part` is absent if its chunks had none. */
export interface StreamPartText {
  part?: StreamPart | null;
  text: string;
}

export interface StreamWithText extends StreamInfo {
  /** The text of the parts of the type text; `null` if it has expired, absent with `text: false`. */
  text?: string | null;
  /** Where `text` begins, bytes. */
  offset?: number;
  /** With `parts: 'all'`: every part, in order. */
  parts?: StreamPartText[] | null;
}

/** How a stream ended: the control frame `done`, or a stream that has ended. */
export interface StreamEndFrame {
  request_id: string;
  state: StreamState;
  finish_reason?: string | null;
  usage?: Record<string, unknown> | null;
  /** Only the stream itself has it. */
  error?: StreamFailure | null;
}

/** The answer to opening or taking over a stream. */
export interface OpenedStream {
  request_id: string;
  producer_token: string;
  generation: number;
  next_index: number;
  lease_seconds: number;
}

/** What a stream looks like on the wire, as in the daemon's documents. */
import type { DoneFrame, Stream, StreamChunkEvent, StreamWithText as AnyStreamWithText } from '../generated.js';

export type { OpenedStream, Stream as StreamInfo, StreamFailure, StreamState } from '../generated.js';

/** The part of an answer that a chunk belongs to. Chunks with the same `id` belong together. */
export type StreamPart = NonNullable<StreamChunkEvent['part']>;

/** Which parts a reader gets: text alone, or all. */
export type PartsWanted = 'text' | 'all';

/** The fields of a chunk that matter for the text. */
export type ChunkFields = Pick<StreamChunkEvent, 'chunk' | 'index' | 'first_index' | 'part'>;

/** The text of one part. `part` is `null` if its chunks had none. */
export interface StreamPartText {
  part: StreamPart | null;
  text: string;
}

/** A stream with its text so far, and with `parts: 'all'` the text of every part, in order. */
export type StreamWithText = Omit<AnyStreamWithText, 'parts'> & { parts?: StreamPartText[] | null };

/** How a stream ended: the control frame, or a stream that has ended. */
export type StreamEndFrame = Omit<DoneFrame, 'type'> | Stream;

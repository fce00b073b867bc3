export { BACKOFF_LEAST_MS, BACKOFF_MOST_MS } from './backoff.js';
export {
  Nervewire,
  type GetStreamOptions,
  type Options,
  type PublishOptions,
  type StreamFilter,
  type SubscribeOptions,
} from './client.js';
export type { ExpiringToken, GetToken } from './credential.js';
export { NervewireError, StreamStateError, type StreamStateCode } from './errors.js';
export type { EventOf, EventType, GapFrame, NervewireEvent, NewEvent } from './events.js';
export type { Filter, Start } from './filter.js';
export type { Answer, Call } from './http.js';
export type { TransportName } from './ladder.js';
export type { List, ListOptions, Page } from './pages.js';
export { BUFFER_ITEMS } from './queue.js';
export { etagOf, type Changing, type Writing } from './collection.js';
export type * from './shapes.js';
export { login, type Login } from './users.js';
export type { Whose } from './memories.js';
export type { ToolFilter } from './resources.js';
export type { Status } from './reconnect.js';
export type { Callbacks, Item, Subscription } from './subscription.js';
export type { StreamPiece } from './streams/progress.js';
export type { ReadStreamOptions, StreamEnd, StreamReader } from './streams/reader.js';
export type {
  PartsWanted,
  StreamFailure,
  StreamInfo,
  StreamPart,
  StreamPartText,
  StreamState,
  StreamWithText,
} from './streams/shapes.js';
export type { AppendOptions, FinishOptions, OpenStreamOptions, StreamWriter } from './streams/writer.js';
export { StreamText, TextAccumulator, type TextState } from './text.js';

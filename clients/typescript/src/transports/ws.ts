/**
 * WebSocket: opened with a one-shot ticket, its credential renewed in place, closed when the consumer is
 * behind.
 *
 * - A browser cannot send headers with a WebSocket, and a token does not belong in a URL. So a ticket is
 *   used.
 * - A browser cannot pause a WebSocket either: when the buffer is full it is closed, and the cursor brings
 *   back the events that were not taken.
 * - A stream is requested with a frame, when the socket is ready for frames. Until the daemon has answered
 *   it, nothing belongs to the stream.
 */
import type { Credential } from '../credential.js';
import { asError, NervewireError } from '../errors.js';
import { frameOf, type Frame } from '../frames.js';
import { Silence } from '../silence.js';
import { ofClose, ofClosing, ofRefusal } from '../verdict.js';
import {
  again,
  complete,
  lost,
  positioned,
  SILENT_HEARTBEATS,
  type Ended,
  type Session,
  type StreamTarget,
  type WebSocketLike,
} from './session.js';

/** Longest wait of a timer: browsers and Node fire at once beyond 2^31 ms. */
const TIMER_MOST_MS = 2 ** 31 - 1;
/** The `ref` of the frame that requests a stream. */
const STREAM_REF = 'stream';

export async function overWebSocket(session: Session): Promise<Ended> {
  const { http, WebSocket, signal } = session;
  if (!WebSocket) return { verdict: 'fall', error: new NervewireError('NETWORK', 'this runtime has no WebSocket') };
  let ticket: string;
  try {
    const { token } = session;
    const answer = await http.call('POST', '/tickets', { token, signal, timeoutMs: session.timing.readyTimeoutMs });
    ticket = ticketIn(answer.body);
  } catch (thrown) {
    return { ...ofRefusal(asError(thrown)), neutral: true }; // this proves nothing about WebSockets yet
  }
  if (signal.aborted) return lost('closed');
  const query = session.stream
    ? new URLSearchParams({ subscribe: 'none' })
    : positioned(session.filter, session.position, 'last_event_id');
  query.set('ticket', ticket);
  return new Promise((done) => {
    const open = new OpenSocket(session, new WebSocket(http.url('/ws', query).replace(/^http/, 'ws')), done);
    open.listen();
  });
}

export function ticketIn(body: unknown): string {
  const { data } = Object(body) as { data?: { ticket?: unknown } };
  if (typeof data?.ticket !== 'string')
    throw new NervewireError('NOT_NERVEWIRE', 'the response contains no ticket', { status: 200 });
  return data.ticket;
}

class OpenSocket {
  #isDone = false;
  #isReady = false;
  #ref = 0;
  #renewal: ReturnType<typeof setTimeout> | undefined;
  readonly #silence = new Silence(() => this.#silent());
  readonly #aborted = () => this.#leave(lost('closed'));

  constructor(
    private readonly session: Session,
    private readonly socket: WebSocketLike,
    private readonly done: (ended: Ended) => void,
  ) {}

  listen(): void {
    const { socket, session } = this;
    this.#silence.allow(session.timing.readyTimeoutMs);
    session.signal.addEventListener('abort', this.#aborted);
    socket.onmessage = ({ data }: { data: unknown }) => this.#message(data);
    socket.onerror = () => {}; // `close` follows and has the same information
    socket.onclose = ({ code, reason }: { code: number; reason: string }) => {
      // Before `ready` a browser does not distinguish a refused upgrade from a lost connection. The daemon
      // had just created a ticket.
      this.#end(ofClose(code, reason));
    };
  }

  #message(data: unknown): void {
    if (this.#isDone) return;
    this.#silence.received();
    let frame;
    try {
      frame = frameOf(String(data));
    } catch (cause) {
      return this.#leave(lost('a frame that is no JSON object', cause));
    }
    const { sink, stream } = this.session;
    if (stream && !this.#isReady) return this.#beforeStream(frame, stream);
    switch (frame.kind) {
      case 'event':
        sink.event(frame.event);
        if (sink.room() === 0) this.#leave(again('the consumer is behind'));
        break;
      case 'ready':
        this.#ready(frame);
        break;
      case 'gap':
        sink.gap(frame.gap);
        break;
      case 'caught_up':
        sink.caughtUp(frame.cursor);
        break;
      case 'cursor':
        sink.cursor(frame.cursor);
        break;
      case 'done':
        if (!stream) break;
        stream.done(frame.end);
        this.#leave(complete());
        break;
      case 'error':
        if (stream && frame.ref === STREAM_REF) this.#leave(ofClosing(frame.code, frame.message, undefined));
        break;
      default: // responses to `auth`: a refused one leaves the old credential, whose end is a 4401
    }
  }

  #ready({ cursor, resumed, heartbeatMs }: Extract<Frame, { kind: 'ready' }>): void {
    this.#isReady = true;
    this.#silence.allow(heartbeatMs * SILENT_HEARTBEATS);
    this.session.sink.opened(cursor, resumed);
    this.#renewLater();
  }

  /** Handles a frame before the daemon has accepted the request for the stream. */
  #beforeStream(frame: Frame, { requestId, parts }: StreamTarget): void {
    if (frame.kind === 'ready' && frame.ref === STREAM_REF) return this.#ready(frame);
    if (frame.kind === 'error') return this.#leave(ofClosing(frame.code, frame.message, undefined));
    if (frame.kind !== 'ready') return;
    this.#silence.allow(frame.heartbeatMs * SILENT_HEARTBEATS);
    const { cursor } = this.session.position;
    const wanted = { request_id: [requestId], from_start: true, parts, last_event_id: cursor };
    this.socket.send(JSON.stringify({ type: 'subscribe', ref: STREAM_REF, ...wanted }));
  }

  /** Sends the next token before the current one expires. */
  #renewLater(): void {
    const { credential } = this.session.http;
    const at = credential.renewAt;
    if (at === undefined || this.#isDone) return;
    this.#renewal = setTimeout(() => void this.#renew(credential), Math.min(Math.max(0, at - Date.now()), TIMER_MOST_MS));
  }

  async #renew(credential: Credential): Promise<void> {
    try {
      const token = await credential.current();
      if (this.#isDone) return;
      if (token !== this.session.token) {
        this.#ref += 1;
        this.session.token = token;
        this.socket.send(JSON.stringify({ type: 'auth', token, ref: this.#ref }));
      }
      this.#renewLater();
    } catch {
      // A 4401 follows when the old token expires, and then getToken is called again.
    }
  }

  #silent(): void {
    const words = this.#isReady ? 'nothing was received for two heartbeats' : 'the WebSocket did not become ready in time';
    this.#leave({ ...lost(words), heldBack: !this.#isReady });
  }

  /** Closes the socket. The peer may be gone, so its response is not awaited. */
  #leave(ended: Ended): void {
    if (this.#isDone) return;
    this.#end(ended);
    try {
      this.socket.close(1000);
    } catch {
      // The socket was not open yet; `ws` throws in that case and closes it anyway.
    }
  }

  #end(ended: Ended): void {
    if (this.#isDone) return;
    this.#isDone = true;
    this.#silence.stop();
    clearTimeout(this.#renewal);
    this.session.signal.removeEventListener('abort', this.#aborted);
    const { socket } = this;
    socket.onopen = socket.onmessage = socket.onclose = null;
    this.done(ended);
  }
}

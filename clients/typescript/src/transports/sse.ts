/**
 * Server-sent events, read with `fetch`. Unlike `EventSource` it sends the credential and the cursor in
 * headers, sees the status of an error, and stops reading while the consumer is behind.
 */
import { asError, NervewireError, refusalOf } from '../errors.js';
import { frameOf } from '../frames.js';
import { Silence } from '../silence.js';
import { SseParser, type Message } from '../sse.js';
import { ofClosing, ofRefusal } from '../verdict.js';
import { again, complete, lost, positioned, SILENT_HEARTBEATS, type Ended, type Session } from './session.js';

export async function overSse(session: Session): Promise<Ended> {
  const end = new AbortController();
  const aborted = () => end.abort();
  session.signal.addEventListener('abort', aborted);
  if (session.signal.aborted) end.abort();
  const stream = new Stream(session, end);
  try {
    return await stream.read();
  } catch (cause) {
    return stream.silent ?? (cause instanceof NervewireError ? ofRefusal(cause) : lost('the event stream was lost', cause));
  } finally {
    stream.stop();
    session.signal.removeEventListener('abort', aborted);
    end.abort(); // releases the connection, however it ended
  }
}

class Stream {
  /** Set if the connection was given up because of silence. */
  silent: Ended | undefined;
  #isReady = false;
  #heartbeatMs = 0;
  readonly #parser = new SseParser();
  readonly #silence: Silence;

  constructor(
    private readonly session: Session,
    private readonly end: AbortController,
  ) {
    this.#silence = new Silence(() => {
      const words = this.#isReady ? 'nothing was received for two heartbeats' : 'the event stream did not begin in time';
      this.silent = { ...lost(words), heldBack: !this.#isReady };
      end.abort();
    });
  }

  stop(): void {
    this.#silence.stop();
  }

  async read(): Promise<Ended> {
    const { http, filter, stream, position, token, timing } = this.session;
    const path = stream ? '/sse/llm' : '/sse';
    this.#silence.allow(timing.readyTimeoutMs);
    const headers: Record<string, string> = { accept: 'text/event-stream' };
    if (position.cursor !== undefined) headers['last-event-id'] = position.cursor;
    const response = await http.open(path, positioned(filter, position, undefined), headers, token, this.end.signal);
    if (!response.ok) throw await refusalOf(response);
    if (stream && response.status === 204) {
      stream.done(undefined);
      return complete();
    }
    if (!response.headers.get('content-type')?.startsWith('text/event-stream') || !response.body) {
      return { verdict: 'fall', error: new NervewireError('NOT_NERVEWIRE', 'the response is not an event stream') };
    }
    const reader = response.body.getReader();
    const text = new TextDecoder();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return lost('the event stream ended');
      this.#silence.received();
      for (const message of this.#parser.push(text.decode(value, { stream: true }))) {
        const ended = this.#message(message);
        if (ended) return ended;
        if (this.session.sink.room() === 0) await this.#wait();
      }
      if (Date.now() >= this.session.until) return again('a better transport is tried again');
    }
  }

  /** Waits until the consumer has caught up. The daemon's silence meanwhile is not its fault. */
  async #wait(): Promise<void> {
    this.#silence.stop();
    await this.session.sink.drained();
    if (this.end.signal.aborted) throw asError(new Error('closed'));
    this.#silence.allow(this.#heartbeatMs);
  }

  #message({ event: name, data, id }: Message): Ended | undefined {
    const { sink, stream } = this.session;
    const frame = frameOf(data);
    if (name === 'closing') {
      const { code, message } = frame.kind === 'error' ? frame : { code: 'UNAVAILABLE', message: 'closed' };
      return ofClosing(code, message, this.#parser.retryMs);
    }
    switch (frame.kind) {
      case 'event':
        sink.event(frame.event);
        break;
      case 'ready':
        this.#isReady = true;
        this.#heartbeatMs = frame.heartbeatMs * SILENT_HEARTBEATS;
        this.#silence.allow(this.#heartbeatMs);
        sink.opened(frame.cursor, frame.resumed);
        break;
      case 'gap':
        sink.gap(frame.gap);
        break;
      case 'caught_up':
        sink.caughtUp(frame.cursor);
        break;
      case 'done':
        stream?.done(frame.end);
        return stream ? complete() : undefined;
      default:
        if (id) sink.cursor(id);
    }
    return undefined;
  }
}

// A server that keeps streams in memory and speaks their protocol, for faults that the daemon cannot be made to
// produce at a chosen moment: lost requests and responses, cuts in the middle of an event, any refusal.
import { createServer } from 'node:http';
import { once } from 'node:events';
import { WebSocketServer } from 'ws';

const CODES = { completed: 'STREAM_ENDED', failed: 'STREAM_ENDED', cancelled: 'STREAM_CANCELLED', abandoned: 'STREAM_ABANDONED' };

export class FakeStreams {
  /** Every request, in order: {method, path, query, headers, body}. */
  requests = [];
  /**
   * Decides about each request: undefined, 'drop' (not handled, the connection is cut), 'lose' (handled, but the
   * response is lost), a refusal {status, code, message?, details?, headers?}, or an event stream {sse: text}. May be async.
   */
  fault = () => undefined;
  /** Bytes after which a new event stream is cut. */
  cutAfter = () => Infinity;
  streams = new Map();
  /** Open readers: {id, parts, send(event), end(done), cut()}. */
  readers = new Set();
  /** WebSockets that subscribe to errors. */
  watchers = new Set();
  #last = 0;

  static async start() {
    const fake = new FakeStreams();
    fake.sockets = new WebSocketServer({ noServer: true });
    fake.server = createServer((request, response) => void fake.#request(request, response));
    fake.server.on('upgrade', (request, socket, head) => {
      fake.sockets.handleUpgrade(request, socket, head, (ws) => fake.#socket(ws, new URL(request.url, 'http://x').searchParams));
    });
    fake.server.listen(0, '127.0.0.1');
    await once(fake.server, 'listening');
    fake.url = `http://127.0.0.1:${fake.server.address().port}`;
    fake.key = 'nwk_fake_0';
    return fake;
  }

  async close() {
    for (const socket of this.sockets.clients) socket.terminate();
    this.server.closeAllConnections();
    this.server.close();
    await once(this.server, 'close');
  }

  /** The requests of one kind: `of('POST', 'chunks')`. */
  of(method, word) {
    return this.requests.filter((one) => one.method === method && one.path.split('/')[3] === word);
  }

  /** Opens a stream as another program. */
  open(id, more = {}) {
    this.streams.set(id, {
      ...{ id, generation: 1, state: 'open', chunks: [], events: [], reason: undefined, usage: undefined, error: undefined },
      ...more,
    });
    return this.streams.get(id);
  }

  /** Appends a chunk as another program. */
  append(id, chunk, part) {
    const stream = this.streams.get(id);
    const event = this.#event(stream, {
      type: 'stream_chunk',
      index: stream.chunks.length,
      chunk,
      is_final: false,
      ...(part && { part }),
    });
    stream.chunks.push({ text: chunk, part });
    this.#deliver(stream, event);
  }

  end(id, state, { reason, usage, error } = {}) {
    const stream = this.streams.get(id);
    Object.assign(stream, { state, reason, usage, error });
    if (error) {
      const event = this.#event(stream, { type: 'error', ...error });
      this.#deliver(stream, event);
      for (const ws of this.watchers) ws.send(JSON.stringify(event));
    }
    this.#deliver(stream, this.#event(stream, { type: 'stream_chunk', index: stream.chunks.length, chunk: '', is_final: true }));
    for (const reader of [...this.readers]) if (reader.id === id) reader.end(this.#done(stream));
    stream.changed?.();
  }

  cancel(id, message = 'the stream was cancelled') {
    if (this.streams.get(id).state === 'open') this.end(id, 'cancelled', { error: { code: 'CANCELLED', message } });
  }

  /** Cuts every reader. */
  cut() {
    for (const reader of [...this.readers]) reader.cut();
  }

  text(id) {
    return this.streams
      .get(id)
      .chunks.map(({ text }) => text)
      .join('');
  }

  #event(stream, fields) {
    this.#last += 1;
    const event = { id: `c${String(this.#last).padStart(8, '0')}`, request_id: stream.id, ...fields, timestamp: '' };
    stream.events.push(event);
    return event;
  }

  #deliver(stream, event) {
    for (const reader of [...this.readers]) if (reader.id === stream.id && sees(reader.parts, event)) reader.send(event);
    stream.changed?.();
  }

  #done({ id, state, reason, usage }) {
    return { type: 'done', request_id: id, state, finish_reason: reason, usage };
  }

  #row(stream) {
    const text = stream.chunks.map(({ text }) => text).join('');
    return {
      ...{ request_id: stream.id, agent_id: null, user_id: null, metadata: stream.metadata ?? null, state: stream.state },
      ...{ generation: stream.generation, next_index: stream.chunks.length, text_bytes: Buffer.byteLength(text) },
      ...{ opened_at: '', ended_at: null, finish_reason: stream.reason ?? null, usage: stream.usage ?? null },
      ...{ error: stream.error ?? null, lease_seconds: stream.lease ?? 60 },
    };
  }

  /** The events after a cursor, with neighbouring chunks of one part merged, as for a late reader. */
  #stored(stream, cursor, parts) {
    const merged = [];
    for (const event of stream.events) {
      if ((cursor && event.id <= cursor) || !sees(parts, event)) continue;
      const last = merged.at(-1);
      const same = last?.type === 'stream_chunk' && event.type === 'stream_chunk' && !event.is_final;
      if (same && last.index + 1 === event.index && JSON.stringify(last.part) === JSON.stringify(event.part)) {
        const first_index = last.first_index ?? last.index;
        merged[merged.length - 1] = { ...event, chunk: last.chunk + event.chunk, first_index };
      } else merged.push(event);
    }
    return merged;
  }

  async #request(request, response) {
    const url = new URL(request.url, 'http://x');
    const cors = {
      'access-control-allow-origin': '*',
      'access-control-allow-headers': '*, authorization',
      'access-control-allow-methods': '*',
    };
    if (request.method === 'OPTIONS') return response.writeHead(204, cors).end();
    let text = '';
    for await (const piece of request) text += piece;
    const { method, headers } = request;
    const path = url.pathname.replace('/api/v1', '');
    const seen = { method, path, query: url.searchParams, headers, body: text ? JSON.parse(text) : undefined };
    this.requests.push(seen);
    const fault = await this.fault(seen);
    if (fault === 'drop') return request.socket.destroy();
    const answer = (status, body) => {
      if (fault === 'lose') return request.socket.destroy();
      response.writeHead(status, { ...cors, ...fault?.headers, 'content-type': 'application/json' });
      response.end(body === undefined ? undefined : JSON.stringify(body));
    };
    const refuse = (status, code, { message = code, details = null } = {}) =>
      answer(status, { code, message, details, timestamp: '' });
    if (fault?.status) return refuse(fault.status, fault.code, fault);
    if (fault?.sse) {
      response.writeHead(200, { ...cors, 'content-type': 'text/event-stream' }).end(fault.sse);
      return undefined;
    }
    if (path === '/tickets') return answer(201, { data: { ticket: 'nwt1_x' }, success: true });
    if (path === '/sse/llm') return this.#sse(url.searchParams, headers['last-event-id'], { request, response, cors });
    const [, , quoted, word] = path.split('/');
    if (method === 'POST' && quoted === undefined) return this.#opened(seen.body, { answer, refuse });
    const stream = this.streams.get(decodeURIComponent(quoted));
    if (!stream) return refuse(404, 'NOT_FOUND');
    const ok = (data) => answer(200, { data, success: true });
    if (method === 'GET') return this.#get(stream, url.searchParams, ok);
    if (word === 'cancel') {
      this.cancel(stream.id, seen.body?.reason);
      return ok(this.#row(stream));
    }
    if (headers['x-producer-token'] !== `nws_${stream.generation}_x`) return refuse(409, 'STREAM_FENCED');
    const end = {
      finish: () => ({ state: 'completed', reason: seen.body.finish_reason, usage: seen.body.usage }),
      fail: () => ({ state: 'failed', error: seen.body }),
    }[word]?.();
    if (stream.state !== 'open') {
      const isRepeated = end && stream.state === end.state && JSON.stringify(stream.usage) === JSON.stringify(end.usage);
      return isRepeated ? ok(this.#row(stream)) : refuse(409, CODES[stream.state]);
    }
    if (word === 'chunks') {
      const expected_index = stream.chunks.length;
      if (seen.body[0].index > expected_index) return refuse(409, 'CONFLICT', { details: { expected_index } });
      for (const { index, chunk, part } of seen.body) if (index === stream.chunks.length) this.append(stream.id, chunk, part);
      return ok({ next_index: stream.chunks.length, ids: [], durable: true });
    }
    if (end) this.end(stream.id, end.state, end);
    return ok(this.#row(stream));
  }

  #opened({ request_id, takeover, lease_seconds, metadata }, { answer, refuse }) {
    let stream = this.streams.get(request_id);
    if (stream && !(takeover && stream.state === 'open')) return refuse(409, 'CONFLICT');
    if (stream) stream.generation += 1;
    else stream = this.open(request_id, { metadata, lease: lease_seconds });
    const { generation, chunks } = stream;
    const data = { request_id, producer_token: `nws_${generation}_x`, generation, next_index: chunks.length };
    answer(takeover ? 200 : 201, { data: { ...data, lease_seconds: stream.lease ?? 60 }, success: true });
  }

  async #get(stream, query, ok) {
    const known = Number(query.get('known') ?? Infinity);
    if (query.get('wait') > 0 && stream.state === 'open' && stream.chunks.length <= known) {
      await new Promise((changed) => {
        stream.changed = changed;
        setTimeout(changed, query.get('wait') * 1000).unref();
      });
    }
    const row = this.#row(stream);
    if (query.get('text') === 'false') return ok(row);
    const text = stream.chunks.filter(({ part }) => !part || part.type === 'text').map(({ text }) => text);
    const offset = Number(query.get('offset') ?? 0);
    const rest = Buffer.from(text.join('')).subarray(offset).toString();
    const parts = [];
    for (const { text, part } of stream.chunks) {
      const last = parts.at(-1);
      if (last && JSON.stringify(last.part) === JSON.stringify(part)) last.text += text;
      else parts.push({ part, text });
    }
    ok({ ...row, text: stream.isExpired ? null : rest, offset, ...(query.get('parts') === 'all' && { parts }) });
  }

  #sse(query, cursor, { request, response, cors }) {
    const id = query.get('request_id');
    const parts = query.get('parts') ?? 'text';
    const stream = this.streams.get(id);
    const events = stream ? this.#stored(stream, cursor, parts) : [];
    if (stream && stream.state !== 'open' && events.length === 0) return response.writeHead(204, cors).end();
    response.writeHead(200, { ...cors, 'content-type': 'text/event-stream' });
    let left = this.cutAfter();
    const write = (text) => {
      const bytes = Buffer.from(text);
      if (left <= 0) return;
      response.write(bytes.subarray(0, left));
      left -= bytes.length;
      if (left <= 0) reader.cut();
    };
    const reader = {
      id,
      parts,
      send: (event) => write(`id: ${event.id}\ndata: ${JSON.stringify(event)}\n\n`),
      named: (name, data) => write(`event: ${name}\ndata: ${JSON.stringify(data)}\n\n`),
      end: (done) => {
        write(`event: done\ndata: ${JSON.stringify(done)}\n\n`);
        this.readers.delete(reader);
        if (left > 0) response.end();
      },
      cut: () => {
        this.readers.delete(reader);
        // The bytes that were written arrive before the end.
        response.write('', () => request.socket.destroySoon());
      },
    };
    this.readers.add(reader);
    response.on('close', () => this.readers.delete(reader));
    const ready = { type: 'ready', connection_id: 'c', cursor: 'c0', resumed: !!cursor, replaying: 0, heartbeat_seconds: 30 };
    write(`event: ready\nid: c0\ndata: ${JSON.stringify(ready)}\n\n`);
    events.forEach(reader.send);
    if (stream && stream.state !== 'open') reader.end(this.#done(stream));
  }

  #socket(ws, query) {
    const say = (frame) => ws.send(JSON.stringify(frame));
    const ready = { type: 'ready', connection_id: 'c', cursor: 'c9', resumed: false, replaying: 0, heartbeat_seconds: 30 };
    say(ready);
    if (query.get('types') === 'error') {
      this.watchers.add(ws);
      ws.on('close', () => this.watchers.delete(ws));
      return;
    }
    ws.on('message', (data) => {
      const { type, ref, request_id, from_start, parts = 'text', last_event_id } = JSON.parse(data);
      if (type !== 'subscribe' || from_start !== true) return;
      const id = request_id[0];
      const stream = this.streams.get(id);
      say({ ...ready, ref });
      const reader = {
        ...{ id, parts, send: say },
        end: (done) => (this.readers.delete(reader), say(done)),
        cut: () => (this.readers.delete(reader), ws.terminate()),
      };
      this.readers.add(reader);
      ws.on('close', () => this.readers.delete(reader));
      if (!stream) return;
      this.#stored(stream, last_event_id, parts).forEach(say);
      if (stream.state !== 'open') reader.end(this.#done(stream));
    });
  }
}

function sees(parts, { part }) {
  return parts === 'all' || !part || part.type === 'text';
}

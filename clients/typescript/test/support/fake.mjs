// A server with just enough of the protocol for cases that the daemon cannot be made to produce: any close
// code, any status, silence.
import { createServer } from 'node:http';
import { once } from 'node:events';
import { WebSocketServer } from 'ws';

export const CURSOR = (n) => `cursor-${String(n).padStart(15, '0')}`;

export class Fake {
  /**
   * Scripts of the next connections, in order; the last one is repeated. Each gets the socket and the
   * request's query.
   */
  scripts = [];
  /** Responds to requests other than tickets: (request, response). */
  answer = (_, response) => response.writeHead(404).end();
  connections = [];

  static async start() {
    const fake = new Fake();
    fake.sockets = new WebSocketServer({ noServer: true });
    fake.server = createServer((request, response) => {
      if (request.method === 'POST' && request.url === '/api/v1/tickets' && !fake.tickets?.(request, response)) {
        response.writeHead(201, { 'content-type': 'application/json' }).end('{"data":{"ticket":"nwt1_x"},"success":true}');
      } else if (!request.url.endsWith('/tickets')) fake.answer(request, response);
    });
    fake.server.on('upgrade', (request, socket, head) => {
      fake.sockets.handleUpgrade(request, socket, head, (ws) => {
        const query = new URL(request.url, 'http://x').searchParams;
        fake.connections.push(query);
        const script = fake.scripts.length > 1 ? fake.scripts.shift() : fake.scripts[0];
        script?.(ws, query);
      });
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
}

export const say = (ws, frame) => ws.send(JSON.stringify(frame));

export function ready(ws, query, heartbeat_seconds = 30) {
  const cursor = query.get('last_event_id') ?? CURSOR(0);
  say(ws, { type: 'ready', connection_id: 'c', cursor, resumed: query.has('last_event_id'), replaying: 0, heartbeat_seconds });
}

export const event = (n) => ({ id: CURSOR(n), type: 'custom', channel: 'c', data: { n }, timestamp: '2026-01-02T03:04:05.678Z' });

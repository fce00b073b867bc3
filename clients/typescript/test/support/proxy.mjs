// A TCP proxy between a client and the daemon that fails like a real network: it cuts connections after some
// bytes, refuses upgrades, ends event streams, or holds them back.
import { createServer, connect } from 'node:net';
import { once } from 'node:events';

export class Proxy {
  /** Number of cuts. */
  cuts = 0;
  /** The requested paths, in order. */
  paths = [];
  /** Returns the bytes after which the next connection is cut; Infinity: never. */
  budget = () => Infinity;
  /** While set, every connection is reset. */
  isDown = false;
  /** What to do with requests of these kinds: undefined, 'refuse', 'end' or 'hold'. */
  upgrades;
  streams;
  #open = new Set();

  static async before(port) {
    const proxy = new Proxy();
    proxy.upstream = port;
    proxy.server = createServer((client) => proxy.#relay(client));
    proxy.server.listen(0, '127.0.0.1');
    await once(proxy.server, 'listening');
    proxy.port = proxy.server.address().port;
    proxy.url = `http://127.0.0.1:${proxy.port}`;
    return proxy;
  }

  /** Resets every open connection. */
  cut() {
    for (const pair of [...this.#open]) this.#reset(pair);
  }

  async close() {
    this.isDown = true;
    this.cut();
    this.server.close();
    await once(this.server, 'close');
  }

  #reset(pair) {
    if (!this.#open.delete(pair)) return;
    this.cuts += 1;
    pair.client.resetAndDestroy();
    pair.server.destroy();
  }

  #relay(client) {
    client.on('error', () => {});
    if (this.isDown) return client.resetAndDestroy();
    const server = connect(this.upstream, '127.0.0.1');
    const pair = { client, server, isHeld: false };
    this.#open.add(pair);
    let left = this.budget();
    const gone = () => {
      this.#open.delete(pair);
      client.destroy();
      server.destroy();
    };
    server.on('error', gone).on('close', gone);
    client.on('close', gone);
    client.on('data', (data) => {
      const line = /^[A-Z]+ (\S+) HTTP\/1.1\r\n/.exec(data.toString('latin1'));
      if (line) {
        this.paths.push(line[1]);
        const wish = /\r\nupgrade: websocket\r\n/i.test(data.toString('latin1'))
          ? this.upgrades
          : line[1].startsWith('/api/v1/sse')
            ? this.streams
            : undefined;
        if (wish === 'refuse') return client.end('HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno');
        if (wish === 'end') return this.#reset(pair);
        if (wish === 'hold') pair.isHeld = true;
      }
      if (!server.write(data)) {
        client.pause();
        server.once('drain', () => client.resume());
      }
    });
    server.on('data', (data) => {
      if (pair.isHeld) return;
      const piece = data.subarray(0, left);
      left -= piece.length;
      const drained = client.write(piece);
      if (left <= 0) return this.#reset(pair); // written bytes may or may not arrive, as in a real loss
      if (!drained) {
        server.pause();
        client.once('drain', () => server.resume());
      }
    });
  }
}

/** Seeded pseudo-random numbers in [0, 1): mulberry32. */
export function seeded(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

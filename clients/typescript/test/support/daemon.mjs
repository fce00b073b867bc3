// The real binary as a child process. NERVEWIRE_BIN names it.
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readFileSync, rmSync, watch } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';

/** Longest start, milliseconds. */
const START_MS = 30_000;

export class Daemon {
  listen = '127.0.0.1:0';
  #starts = 0;

  /** `env` has the configuration, such as `{ NERVEWIRE_HEARTBEAT_SECONDS: '1' }`. */
  static async start(env = {}) {
    const daemon = new Daemon();
    daemon.binary = process.env.NERVEWIRE_BIN;
    if (!daemon.binary) throw new Error('NERVEWIRE_BIN must name the daemon');
    daemon.work = mkdtempSync(join(tmpdir(), 'nervewire-ts-'));
    daemon.env = { ...process.env, ...env };
    const { stdout } = await promisify(execFile)(daemon.binary, ['init', '--json', '--data-dir', join(daemon.work, 'data')], {
      env: daemon.env,
    });
    daemon.key = JSON.parse(stdout).api_key;
    await daemon.serve();
    return daemon;
  }

  get url() {
    return `http://${this.listen}`;
  }

  get port() {
    return Number(this.listen.split(':').at(-1));
  }

  /** Starts the daemon; later starts use the same port. */
  async serve() {
    this.#starts += 1;
    const ready = join(this.work, `ready-${this.#starts}.json`);
    const readyLine = new Promise((done) => {
      const look = () => {
        if (!existsSync(ready)) return;
        try {
          done(JSON.parse(readFileSync(ready, 'utf8')));
        } catch {
          // not complete yet
        }
      };
      this.watcher = watch(this.work, look);
    });
    const args = [
      'serve',
      '--listen',
      this.listen,
      '--admin-listen',
      '127.0.0.1:0',
      '--data-dir',
      join(this.work, 'data'),
      '--ready-file',
      ready,
    ];
    this.process = spawn(this.binary, args, { env: this.env, stdio: ['ignore', 'ignore', 'pipe'] });
    this.log = '';
    this.process.stderr.setEncoding('utf8').on('data', (text) => (this.log = (this.log + text).slice(-8192)));
    this.ended = once(this.process, 'exit');
    let timer;
    const failed = Promise.race([
      this.ended.then(([code]) => `the daemon ended with ${code}`),
      new Promise((done) => (timer = setTimeout(done, START_MS, `no ready file within ${START_MS} ms`))),
    ]).then((why) => Promise.reject(new Error(`${why}:\n${this.log}`)));
    try {
      this.listen = (await Promise.race([readyLine, failed])).listen;
    } finally {
      failed.catch(() => {});
      clearTimeout(timer);
      this.watcher.close();
    }
  }

  /** Sends SIGKILL. */
  async kill() {
    this.process.kill('SIGKILL');
    await this.ended;
  }

  /** Sends SIGTERM and removes the daemon. */
  async stop() {
    await this.drain();
    rmSync(this.work, { recursive: true, force: true });
  }

  /** Sends SIGTERM. Any exit code but 0 is a failure. */
  async drain() {
    this.process.kill('SIGTERM');
    const [code] = await this.ended;
    if (code !== 0) throw new Error(`exit ${code} after SIGTERM:\n${this.log}`);
  }

  /** Returns the data of a REST response. */
  async api(method, path, body, key = this.key) {
    const response = await fetch(`${this.url}/api/v1${path}`, {
      method,
      headers: { authorization: `Bearer ${key}`, ...(body !== undefined && { 'content-type': 'application/json' }) },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
    const text = await response.text();
    if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${text}`);
    return text ? JSON.parse(text).data : undefined;
  }

  /** Publishes one `custom` event per value in one request. Returns the ids. */
  async publish(channel, values) {
    const events = values.map((n) => ({ type: 'custom', channel, data: { n } }));
    return (await this.api('POST', '/events', events)).ids;
  }

  /** Creates a user's token. */
  token(sub, more = {}) {
    return this.api('POST', '/tokens', { sub, ...more }).then((made) => made.token);
  }
}

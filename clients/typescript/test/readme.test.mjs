// Every example of README.md is type-checked. Examples marked `run` are run against the real daemon.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { after, before, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { transform } from 'esbuild';
import { GET_TOKEN_MOST_MS } from '../dist/credential.js';
import { BUSY_MS, LATER_MS } from '../dist/verdict.js';
import { BACKOFF_LEAST_MS, BACKOFF_MOST_MS } from '../dist/backoff.js';
import { REQUEST_TRIES } from '../dist/http.js';
import { CLIMB_AFTER_MS, CLIMB_MOST_MS, CUT_SHORT, NEVER_READY } from '../dist/ladder.js';
import { BUFFER_ITEMS } from '../dist/queue.js';
import { REFUSED_MOST } from '../dist/reconnect.js';
import { RETRY_FOR_MS } from '../dist/streams/writer.js';
import { TIMING } from '../dist/transports/session.js';
import { Daemon } from './support/daemon.mjs';

const at = (path) => fileURLToPath(new URL(path, import.meta.url));
const run = promisify(execFile);
// Inside the package `nervewire` resolves by its own name, as in a project that has installed it.
const work = at('./.readme');
const text = readFileSync(at('../README.md'), 'utf8');
const examples = [...text.matchAll(/^```(tsx?)( run)?\n([\s\S]*?)^```$/gm)].map(([, kind, isRun, code]) => ({
  kind,
  isRun: !!isRun,
  code,
}));

describe('README', () => {
  let daemon;
  before(async () => {
    daemon = await Daemon.start();
    rmSync(work, { recursive: true, force: true });
    mkdirSync(work, { recursive: true });
  });
  after(async () => {
    rmSync(work, { recursive: true, force: true });
    await daemon?.stop();
  });

  it("its figures equal the code's", () => {
    const [least, most, climb] = [BACKOFF_LEAST_MS / 1000, BACKOFF_MOST_MS / 1000, CLIMB_AFTER_MS / 60_000];
    for (const said of [
      `at most \`buffer\` events (${BUFFER_ITEMS.toLocaleString('en')})`,
      `if that ${['', 'once', 'twice'][NEVER_READY]} did not become ready, or not within ${TIMING.readyTimeoutMs / 1000} s`,
      `cut short ${CUT_SHORT} times`,
      `After ${climb} minutes (then ${2 * climb}, ${4 * climb}, … ${CLIMB_MOST_MS / 60_000})`,
      `after ${least / 2}–${least} s, doubling to ${most / 2}–${most} s`,
      `(${REQUEST_TRIES} attempts;`,
      `given up if the ${['', '', 'next'][REFUSED_MOST]} is refused too`,
      `It has ${GET_TOKEN_MOST_MS / 1000} s to answer`,
      `for up to ${RETRY_FOR_MS / 60_000} minutes`,
      `not before ${LATER_MS / 1000} s, ${BUSY_MS / 1000} s unless`,
    ]) {
      assert.ok(text.includes(said), said);
    }
  });

  it('every example is well typed', async () => {
    assert.ok(examples.length >= 6);
    examples.forEach(({ kind, code }, n) =>
      writeFileSync(
        `${work}/example${n}.${kind}`,
        code.replace("'./client.js'", `'./example${examples.findIndex((one) => one.code.includes('export const client'))}.js'`),
      ),
    );
    // Types of Node and npm `ws` that the examples use and that are not installed.
    writeFileSync(
      `${work}/node.d.ts`,
      `declare const process: { env: Record<string, string | undefined>; stdout: { write(text: string): void } };
declare module 'ws' { export const WebSocket: typeof globalThis.WebSocket; }`,
    );
    const { compilerOptions } = JSON.parse(readFileSync(at('../tsconfig.json'), 'utf8'));
    const options = {
      ...compilerOptions,
      noEmit: true,
      declaration: false,
      rootDir: '../..',
      outDir: 'out',
      jsx: 'react-jsx',
      noUnusedLocals: false,
    };
    writeFileSync(`${work}/tsconfig.json`, JSON.stringify({ compilerOptions: options, include: ['*.ts', '*.tsx'] }));
    const { stdout } = await run(process.execPath, [at('../node_modules/typescript/bin/tsc'), '-p', work]).catch(
      (failure) => failure,
    );
    assert.equal(stdout, '');
  });

  for (const [n, { code }] of [...examples.entries()].filter(([, { isRun }]) => isRun)) {
    it(`example ${n + 1} runs`, async () => {
      const file = `${work}/run${n}.mjs`;
      writeFileSync(file, (await transform(code, { loader: 'ts', format: 'esm' })).code);
      const env = { ...process.env, NERVEWIRE_URL: daemon.url, NERVEWIRE_KEY: daemon.key };
      const { stdout, stderr } = await run(process.execPath, [file], { env, timeout: 30_000 });
      assert.equal(stderr, '');
      const expected = [...code.matchAll(/console\.log\(.*\); \/\/ (.*)$/gm)].map(([, text]) => text);
      for (const text of expected) assert.ok(stdout.includes(text), `${stdout} lacks ${text}`);
      if (code.includes('r-1')) assert.match(stdout, /^Your train leaves at 9\.\n r-1 Your train leaves at 9\. false undefined/);
    });
  }
});

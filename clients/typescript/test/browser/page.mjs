// The code of the pages of the browser tests: bundled by esbuild, called by the tests through `window`.
import { Nervewire } from 'nervewire';
import { NervewireProvider, useNervewire, useStream } from 'nervewire/react';
import { createElement as h, StrictMode, useState } from 'react';
import { createRoot } from 'react-dom/client';

/** As on a real page: its own server knows who is logged in and returns a token. */
const getToken = async () => (await fetch('/token')).text();
const backoff = { leastMs: 1, mostMs: 20 };

window.follow = async (url, transport, filter) => {
  window.client = new Nervewire({ url, getToken, transport, backoff, timing: { readyTimeoutMs: 2000 } });
  window.got = [];
  window.used = new Set();
  window.subscription = window.client.subscribe({
    ...filter,
    onEvent: (event) => window.got.push(event.data.n),
    onStatus: (status) => status.state === 'open' && window.used.add(status.transport),
  });
  await window.subscription.ready;
};

function Feed({ channel }) {
  const { events, status, gap, clear } = useNervewire({
    channel,
    keep: 5,
    types: 'custom',
    onEvent: (event) => window.heard.push(event.data.n),
  });
  return h(
    'div',
    null,
    h('output', { id: 'status' }, status.state),
    h('output', { id: 'gap' }, gap?.reason),
    h('output', { id: 'events' }, events.map((event) => event.data.n).join(' ')),
    h('button', { id: 'clear', onClick: clear }),
  );
}

function Text({ id }) {
  const { text, parts, state, error, finishReason, usage, cancel } = useStream(id);
  window.texts.push(text);
  return h(
    'div',
    null,
    h('output', { id: 'text' }, text),
    h('output', { id: 'parts' }, parts.map(({ id, text }) => `${id}: ${text}`).join(' | ')),
    h('output', { id: 'state' }, state),
    h('output', { id: 'error' }, error && `${error.code}: ${error.message}`),
    h('output', { id: 'end' }, finishReason && `${finishReason} ${JSON.stringify(usage)}`),
    h('button', { id: 'stop', onClick: () => cancel('the user pressed stop') }),
  );
}

function App({ channel, stream }) {
  const [props, setProps] = useState({ channel, stream, isThere: true });
  window.setProps = (more) => setProps((now) => ({ ...now, ...more }));
  const feed = props.channel && h(Feed, { channel: props.channel });
  return props.isThere && h('main', null, feed, h(Text, { id: props.stream }));
}

window.mount = (url, channel, stream) => {
  window.heard = [];
  window.texts = [];
  window.client = new Nervewire({ url, getToken, backoff });
  const root = createRoot(document.body.appendChild(document.createElement('div')));
  root.render(h(StrictMode, null, h(NervewireProvider, { client: window.client }, h(App, { channel, stream }))));
  window.unmount = () => root.unmount();
};

/** A page that is loaded with `#…` shows one stream, like a chat whose address has the id of the answer. */
const [, url, stream] = /^#(.*) (.*)$/.exec(decodeURIComponent(location.hash)) ?? [];
if (stream) window.mount(url, undefined, stream);

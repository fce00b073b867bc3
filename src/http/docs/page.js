// Shows both documents. Everything is built as nodes and text, never as markup, so no document can bring in a program.
'use strict';

// Which half was asked for; what begins with a slash is Swagger UI's.
const section = document.getElementById(location.hash.slice(1));

// The validator that Swagger UI would otherwise ask is another origin's.
SwaggerUIBundle({
  url: 'api-docs/openapi.json',
  dom_id: '#openapi',
  deepLinking: true,
  docExpansion: 'list',
  defaultModelsExpandDepth: 0,
  validatorUrl: null,
});

// Its own `onComplete` comes before it has drawn anything.
const requests = new Promise((done) => {
  const drawn = new MutationObserver(() => {
    if (!document.querySelector('.opblock')) return;
    drawn.disconnect();
    done();
  });
  drawn.observe(document.getElementById('openapi'), { childList: true, subtree: true });
});

/** An element with children; text where a child is a string. */
function node(name, ...children) {
  const made = document.createElement(name);
  made.append(...children);
  return made;
}

/** A text with what stands between backticks as code. */
function prose(text) {
  return text.split('`').map((part, at) => (at % 2 ? node('code', part) : part));
}

/** What `#/a/b` points at. */
function find(whole, reference) {
  return reference.split('/').slice(1).reduce((at, key) => at[key.replaceAll('~1', '/').replaceAll('~0', '~')], whole);
}

/** A schema in few words. */
function shape(schema) {
  if (schema.$ref) return schema.$ref.split('/').pop();
  if ('const' in schema) return JSON.stringify(schema.const);
  if (schema.enum) return schema.enum.map((one) => JSON.stringify(one)).join(' | ');
  const either = schema.oneOf || schema.anyOf;
  if (either) return either.map(shape).join(' | ');
  if (schema.type === 'array') return `${shape(schema.items || {})}[]`;
  const type = [].concat(schema.type || 'any').join(' | ');
  return schema.format ? `${type} (${schema.format})` : type;
}

/** A table of an object's fields. */
function fields(schema) {
  const required = new Set(schema.required);
  const rows = Object.entries(schema.properties || {}).map(([name, field]) => node('tr',
    node('td', name, required.has(name) ? '' : node('i', '?')),
    node('td', shape(field)),
    node('td', ...prose(field.description || ''))));
  return node('table', node('tbody', ...rows));
}

/** A message: its name, its fields, an example. */
function message(whole, reference) {
  const told = find(whole, find(whole, reference).$ref || reference);
  const schema = find(whole, told.payload.$ref);
  const example = (schema.examples || [])[0];
  return node('details',
    node('summary', node('b', told.title), node('span', ...prose(schema.description || ''))),
    fields(schema),
    example ? node('pre', JSON.stringify(example, null, 2)) : '');
}

/** A channel: what goes over it, either way. */
function channel(whole, name) {
  const told = whole.channels[name];
  const at = `#/channels/${name}`;
  const operations = Object.values(whole.operations).filter((operation) => operation.channel.$ref === at);
  const said = (action) => {
    const all = operations.filter((operation) => operation.action === action).flatMap((one) => one.messages);
    return [...new Set(all.map((one) => one.$ref))].map((reference) => message(whole, reference));
  };
  const bindings = operations.map((one) => one.bindings?.http?.query).concat(told.bindings?.ws?.query).filter(Boolean);
  const client = said('receive');
  return node('section',
    node('h2', told.address),
    node('p', ...prose(told.description)),
    ...(bindings.length ? [node('h3', 'Parameters'), fields(bindings[0])] : []),
    node('h3', 'The daemon says'), ...said('send'),
    ...(client.length ? [node('h3', 'A client says'), ...client] : []));
}

const streams = document.getElementById('asyncapi');
const shown = fetch('api-docs/asyncapi.json')
  .then((answer) => answer.json())
  .then((whole) => streams.append(...Object.keys(whole.channels).map((name) => channel(whole, name))))
  .catch((error) => {
    const wrong = node('p', `The document could not be shown: ${error.message}`);
    wrong.className = 'wrong';
    streams.append(wrong);
  });

// The browser looked for it before anything stood there, and Swagger UI has taken the fragment for one of its own.
Promise.all([requests, shown]).then(() => requestAnimationFrame(() => {
  if (!section) return;
  history.replaceState(null, '', `#${section.id}`);
  section.scrollIntoView();
}));

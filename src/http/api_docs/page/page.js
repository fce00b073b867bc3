// Shows both documents. Everything is built as nodes and text, never as markup, so a document cannot
// inject a script.
'use strict';

// The half of the page that the fragment selects. Fragments that start with a slash belong to Swagger UI.
const section = document.getElementById(location.hash.slice(1));

// Otherwise Swagger UI would call a validator at another origin.
SwaggerUIBundle({
  url: 'api-docs/openapi.json',
  dom_id: '#openapi',
  deepLinking: true,
  docExpansion: 'list',
  defaultModelsExpandDepth: 0,
  validatorUrl: null,
});

// The `onComplete` of Swagger UI is called before anything is drawn.
const requests = new Promise((done) => {
  const drawn = new MutationObserver(() => {
    if (!document.querySelector('.opblock')) return;
    drawn.disconnect();
    done();
  });
  drawn.observe(document.getElementById('openapi'), { childList: true, subtree: true });
});

/** Creates an element with children. A string becomes a text node. */
function node(name, ...children) {
  const made = document.createElement(name);
  made.append(...children);
  return made;
}

/** Creates a text in which the parts between backticks are code. */
function prose(text) {
  return text.split('`').map((part, at) => (at % 2 ? node('code', part) : part));
}

/** Resolves a reference such as `#/a/b`. */
function find(whole, reference) {
  return reference.split('/').slice(1).reduce((at, key) => at[key.replaceAll('~1', '/').replaceAll('~0', '~')], whole);
}

/** Describes a schema in few words. */
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

/** Creates a table of an object's fields. */
function fields(schema) {
  const required = new Set(schema.required);
  const rows = Object.entries(schema.properties || {}).map(([name, field]) => node('tr',
    node('td', name, required.has(name) ? '' : node('i', '?')),
    node('td', shape(field)),
    node('td', ...prose(field.description || ''))));
  return node('table', node('tbody', ...rows));
}

/** Shows a message: name, fields, an example. */
function message(whole, reference) {
  const described = find(whole, find(whole, reference).$ref || reference);
  const schema = find(whole, described.payload.$ref);
  const example = (schema.examples || [])[0];
  return node('details',
    node('summary', node('b', described.title), node('span', ...prose(schema.description || ''))),
    fields(schema),
    example ? node('pre', JSON.stringify(example, null, 2)) : '');
}

/** Shows a channel: the messages in both directions. */
function channel(whole, name) {
  const described = whole.channels[name];
  const at = `#/channels/${name}`;
  const operations = Object.values(whole.operations).filter((operation) => operation.channel.$ref === at);
  const messages = (action) => {
    const all = operations.filter((operation) => operation.action === action).flatMap((one) => one.messages);
    return [...new Set(all.map((one) => one.$ref))].map((reference) => message(whole, reference));
  };
  const bindings = operations.map((one) => one.bindings?.http?.query).concat(described.bindings?.ws?.query).filter(Boolean);
  const client = messages('receive');
  return node('section',
    node('h2', described.address),
    node('p', ...prose(described.description)),
    ...(bindings.length ? [node('h3', 'Parameters'), fields(bindings[0])] : []),
    node('h3', 'Messages of the daemon'), ...messages('send'),
    ...(client.length ? [node('h3', 'Messages of a client'), ...client] : []));
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

// The browser looked for the fragment before the page was built, and Swagger UI has taken it for one
// of its own.
Promise.all([requests, shown]).then(() => requestAnimationFrame(() => {
  if (!section) return;
  history.replaceState(null, '', `#${section.id}`);
  section.scrollIntoView();
}));

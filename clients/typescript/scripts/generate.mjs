// Writes src/generated.ts: the schemas of the daemon's two API documents as TypeScript types.
//
//     node scripts/generate.mjs           writes it
//     node scripts/generate.mjs --check   exits 1 if it differs from the documents
//
// Reads docs/api/openapi.json and docs/api/asyncapi.json, the committed snapshots of the documents below
// /api-docs. A schema that is in both documents is written once and must be equal in both. The generator
// understands the part of JSON Schema that the documents use; anything else is an error, so that no type is
// silently wrong.
import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const HEADER = `/**
 * Types of the daemon's documents, written by scripts/generate.mjs: change those, not this.
 */
/* eslint-disable */
`;

/** Keywords that do not affect the type. */
const ANNOTATIONS = new Set([
  'title',
  'description',
  'examples',
  'example',
  'default',
  'deprecated',
  'format',
  'pattern',
  'minLength',
  'maxLength',
  'minimum',
  'maximum',
  'exclusiveMinimum',
  'exclusiveMaximum',
  'multipleOf',
  'minItems',
  'maxItems',
  'uniqueItems',
  'minProperties',
  'maxProperties',
  'readOnly',
  'writeOnly',
  'contentMediaType',
  'contentEncoding',
  'discriminator',
  'propertyNames',
  '$schema',
  '$id',
  '$comment',
]);
const UNDERSTOOD = new Set([
  '$ref',
  'const',
  'enum',
  'type',
  'properties',
  'required',
  'additionalProperties',
  'items',
  'prefixItems',
  'oneOf',
  'anyOf',
  'allOf',
]);

/** The types of several documents' `components.schemas`. */
export function typesOf(documents) {
  const schemas = new Map();
  for (const document of documents) {
    for (const [name, schema] of Object.entries(document.components?.schemas ?? {})) {
      const known = schemas.get(name);
      if (known && !isSame(known, schema)) throw new Error(`${name}: the documents say different things`);
      schemas.set(name, schema);
    }
  }
  const sorted = [...schemas].sort(([a], [b]) => (a < b ? -1 : 1));
  const names = new Map();
  for (const [name] of sorted) {
    const type = identifier(name);
    if (names.has(type)) throw new Error(`${name}: ${names.get(type)} has the same name as a type`);
    names.set(type, name);
  }
  return HEADER + sorted.map(([name, schema]) => `\n${declaration(name, schema)}`).join('');
}

function declaration(name, schema) {
  const type = typeOf(schema, name, '');
  const words = comment(schema, '');
  if (type.startsWith('{')) return `${words}export interface ${identifier(name)} ${type}\n`;
  return `${words}export type ${identifier(name)} = ${type};\n`;
}

function typeOf(schema, where, indent) {
  if (schema === true) return 'unknown';
  if (schema === false) return 'never';
  for (const key of Object.keys(schema)) {
    if (!ANNOTATIONS.has(key) && !UNDERSTOOD.has(key) && !key.startsWith('x-'))
      throw new Error(`${where}: ${key} is not understood`);
  }
  const parts = [];
  if (schema.$ref !== undefined) parts.push(refOf(schema.$ref, where));
  else if ('const' in schema) parts.push(JSON.stringify(schema.const));
  else if (schema.enum) parts.push(union(schema.enum.map((value) => JSON.stringify(value))));
  else if (schema.type !== undefined || schema.properties || schema.additionalProperties)
    parts.push(plain(schema, where, indent));
  for (const key of ['oneOf', 'anyOf']) {
    // Alternatives that only require fields leave the type as it is.
    const choices = schema[key]?.filter((choice) =>
      Object.keys(choice).some((word) => word !== 'required' && !ANNOTATIONS.has(word)),
    );
    if (choices?.length) parts.push(union(choices.map((choice, at) => typeOf(choice, `${where}.${key}[${at}]`, indent))));
  }
  for (const [at, part] of (schema.allOf ?? []).entries()) parts.push(typeOf(part, `${where}.allOf[${at}]`, indent));
  const known = parts.filter((part) => part !== 'unknown');
  if (known.length === 0) return 'unknown';
  return known.length === 1
    ? known[0]
    : known.map((part) => (part.includes(' | ') && !part.startsWith('{') ? `(${part})` : part)).join(' & ');
}

function plain(schema, where, indent) {
  const types = [schema.type ?? 'object'].flat();
  return union(
    types.map((type) => {
      switch (type) {
        case 'string':
        case 'boolean':
        case 'null':
          return type;
        case 'integer':
        case 'number':
          return 'number';
        case 'array':
          return arrayOf(schema, where, indent);
        case 'object':
          return objectOf(schema, where, indent);
        default:
          throw new Error(`${where}: type ${type} is not understood`);
      }
    }),
  );
}

function arrayOf(schema, where, indent) {
  if (schema.prefixItems) return `[${schema.prefixItems.map((item, at) => typeOf(item, `${where}[${at}]`, indent)).join(', ')}]`;
  const item = typeOf(schema.items ?? true, `${where}[]`, indent);
  return /^[\w$.]+$/.test(item) ? `${item}[]` : `(${item})[]`;
}

function objectOf(schema, where, indent) {
  const properties = Object.entries(schema.properties ?? {});
  if (properties.length === 0) {
    const { additionalProperties: rest = true } = schema;
    return rest === false ? 'Record<string, never>' : `Record<string, ${typeOf(rest, `${where}.*`, indent)}>`;
  }
  const required = new Set(schema.required);
  const deeper = `${indent}  `;
  const lines = properties.map(([name, property]) => {
    const key = /^[A-Za-z_$][\w$]*$/.test(name) ? name : JSON.stringify(name);
    const type = typeOf(property, `${where}.${name}`, deeper);
    return `${comment(property, deeper)}${deeper}${key}${required.has(name) ? '' : '?'}: ${type};\n`;
  });
  return `{\n${lines.join('')}${indent}}`;
}

function union(types) {
  return [...new Set(types)].join(' | ');
}

function refOf(ref, where) {
  const name = /^#\/components\/schemas\/([^/]+)$/.exec(ref)?.[1];
  if (name === undefined) throw new Error(`${where}: ${ref} is no schema of this document`);
  return identifier(decodeURIComponent(name).replaceAll('~1', '/').replaceAll('~0', '~'));
}

function identifier(name) {
  const type = name.replace(/[^A-Za-z0-9_$]+/g, '_');
  return /^\d/.test(type) ? `_${type}` : type;
}

function comment(schema, indent) {
  if (typeof schema?.description !== 'string') return '';
  const lines = schema.description
    .trim()
    .replaceAll('*/', '* /')
    .split('\n')
    .map((line) => line.trimEnd());
  if (lines.length === 1) return `${indent}/** ${lines[0]} */\n`;
  return `${indent}/**\n${lines.map((line) => `${indent} *${line && ' '}${line}\n`).join('')}${indent} */\n`;
}

function isSame(a, b) {
  return JSON.stringify(canonical(a)) === JSON.stringify(canonical(b));
}

function canonical(value) {
  if (Array.isArray(value)) return value.map(canonical);
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(
    Object.keys(value)
      .sort()
      .map((key) => [key, canonical(value[key])]),
  );
}

function main() {
  const at = (path) => new URL(path, import.meta.url);
  const documents = ['openapi', 'asyncapi'].map((name) => JSON.parse(readFileSync(at(`../../../docs/api/${name}.json`), 'utf8')));
  const wanted = typesOf(documents);
  const file = at('../src/generated.ts');
  if (!process.argv.includes('--check')) return writeFileSync(file, wanted);
  if (readFileSync(file, 'utf8') !== wanted) {
    console.error('src/generated.ts is not what docs/api says: run npm run generate');
    process.exitCode = 1;
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) main();

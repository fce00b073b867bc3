// Tests of the generator on documents with the structure of the daemon's.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { typesOf } from '../../scripts/generate.mjs';

const fixture = (name) => readFileSync(new URL(`../fixtures/${name}`, import.meta.url), 'utf8');
const documents = () => [JSON.parse(fixture('openapi.json')), JSON.parse(fixture('asyncapi.json'))];
const of = (schemas) =>
  typesOf([{ components: { schemas } }])
    .split('\n\n')
    .slice(1)
    .join('\n\n')
    .trim();

test('both documents together', () => {
  assert.equal(typesOf(documents()), fixture('generated.ts.txt'));
});

test('a schema that differs between the documents is refused', () => {
  const [openapi, asyncapi] = documents();
  openapi.components.schemas.Ref.oneOf[1].maxLength = 65;
  assert.throws(() => typesOf([openapi, asyncapi]), /^Error: Ref: the documents say different things/);
});

test('an unknown construct is refused by name', () => {
  assert.throws(() => of({ A: { type: 'object', properties: { b: { not: {} } } } }), /A\.b: not is not understood/);
  assert.throws(() => of({ A: { type: 'date' } }), /A: type date/);
  assert.throws(() => of({ A: { $ref: 'other.json#/B' } }), /A: other.json#\/B is no schema/);
  assert.throws(() => of({ 'A.b': {}, 'A b': {} }), /A\.b: A b has the same name|A b: A\.b|has the same name/);
});

test('shapes', () => {
  assert.equal(of({ A: {} }), 'export type A = unknown;');
  assert.equal(of({ A: { type: 'object' } }), 'export type A = Record<string, unknown>;');
  assert.equal(
    of({ A: { type: 'object', additionalProperties: { type: 'integer' } } }),
    'export type A = Record<string, number>;',
  );
  assert.equal(
    of({ A: { type: ['array', 'null'], items: { enum: ['a', 1, null] } } }),
    'export type A = ("a" | 1 | null)[] | null;',
  );
  assert.equal(
    of({ A: { anyOf: [{ type: 'string' }, { type: 'null' }], description: 'x */ y' } }),
    '/** x * / y */\nexport type A = string | null;',
  );
  assert.equal(
    of({ A: { allOf: [{ $ref: '#/components/schemas/A' }, { oneOf: [{ type: 'string' }, { type: 'number' }] }] } }),
    'export type A = A & (string | number);',
  );
});

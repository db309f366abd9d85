// The texts of the page in its languages: `node --test tests/web/texts.test.mjs`.

import assert from 'node:assert/strict';
import { cp, mkdtemp, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, test } from 'node:test';
import { fileURLToPath, pathToFileURL } from 'node:url';

const web = fileURLToPath(new URL('../../assets/web', import.meta.url));
// The server marks the files as modules by content type; Node.js needs a package.json.
const copy = await mkdtemp(path.join(tmpdir(), 'commingle-texts-'));
after(() => rm(copy, { recursive: true }));
await cp(web, copy, { recursive: true });
await writeFile(path.join(copy, 'package.json'), '{"type":"module"}');
const { choose, LANGUAGES, speaker, t } = await import(pathToFileURL(path.join(copy, 'texts.js')).href);

/** @type {Record<string, Record<string, string | Record<string, string>>>} */
const texts = {};
for (const tag of Object.keys(LANGUAGES))
  texts[tag] = JSON.parse(await readFile(path.join(web, 'texts', `${tag}.json`), 'utf8'));
const keys = Object.keys(texts.en);

const formsOf = (text) => (typeof text === 'string' ? [text] : Object.values(text));
const placeholders = (text) => [...new Set(text.match(/\{\w+\}/g))].sort().join(' ');

test('every language has the same keys with the same placeholders, and no empty text', () => {
  for (const [tag, all] of Object.entries(texts)) {
    assert.deepEqual(Object.keys(all), keys, `${tag}: the keys differ from those of English, or their order`);
    for (const key of keys) {
      const english = formsOf(texts.en[key]);
      assert.equal(typeof all[key], typeof texts.en[key], `${tag}: ${key} is a plural in one language only`);
      const forms = formsOf(all[key]);
      assert.equal(placeholders(forms.at(-1)), placeholders(english.at(-1)), `${tag}: ${key}: ${forms.at(-1)}`);
      for (const form of forms) {
        assert.ok(form.length > 0, `${tag}: ${key} is empty`);
        // A form for one person may say "one" in words.
        const unknown = placeholders(form).split(' ').filter((name) => !english.join().includes(name));
        assert.deepEqual(unknown, [], `${tag}: ${key}: ${form}`);
      }
    }
  }
});

test('a plural has the categories of its language, and its last form has the count', () => {
  for (const [tag, all] of Object.entries(texts)) {
    const { pluralCategories } = new Intl.PluralRules(tag).resolvedOptions();
    for (const [key, text] of Object.entries(all)) {
      if (typeof text === 'string') continue;
      // "many" is for a million and more in Spanish and French, which the page does not count.
      const needed = pluralCategories.filter((one) => one !== 'many' || tag === 'ar');
      assert.deepEqual(Object.keys(text).toSorted(), needed.toSorted(), `${tag}: ${key}`);
      assert.match(text.other, /\{count\}/, `${tag}: ${key}`);
    }
  }
});

test('a text in a language other than English is translated', () => {
  const letters = { ko: /\p{Script=Hangul}/u, ja: /[\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Han}]/u, ar: /\p{Script=Arabic}/u };
  for (const tag of Object.keys(LANGUAGES).filter((one) => one !== 'en')) {
    const same = keys.filter((key) => JSON.stringify(texts[tag][key]) === JSON.stringify(texts.en[key]));
    assert.ok(same.length < keys.length / 12, `${tag}: ${same.length} texts are as in English: ${same.join(', ')}`);
    if (!letters[tag]) continue;
    const words = keys.filter((key) => /[a-z]{3}/i.test(formsOf(texts.en[key]).join().replace(/\{\w+\}/g, '')));
    const foreign = words.filter((key) => !letters[tag].test(formsOf(texts[tag][key]).join()));
    assert.ok(foreign.length < 12, `${tag}: no letters of its script in ${foreign.join(', ')}`);
  }
});

test('the code uses every key, and no key that does not exist', async () => {
  const files = (await readdir(web)).filter((name) => /\.(js|html)$/.test(name));
  const code = (await Promise.all(files.map((name) => readFile(path.join(web, name), 'utf8')))).join('\n');
  const modules = new Set(keys.map((key) => key.split('.')[0]));
  /** @type {Set<string>} */
  const used = new Set();
  const unknown = [];
  const note = (key) => (Object.hasOwn(texts.en, key) ? used.add(key) : unknown.push(key));
  for (const [, key] of code.matchAll(/\sdata-t(?:-[a-z-]+)?="([^"]*)"/g)) note(key);
  for (const [, key] of code.matchAll(/(?<![\w.$])t\(\s*['"]([^'"]*)['"]/g)) note(key);
  // Keys in tables and conditions, but not names of files.
  for (const [, key, module, name] of code.matchAll(/['"](([a-z]+)\.([a-z0-9_]+))['"]/g))
    if (modules.has(module) && !['js', 'css', 'json', 'html'].includes(name)) note(key);
  // Keys with a variable part: `quality.${level}`.
  for (const [, head, tail] of code.matchAll(/`([a-z]+\.[a-z_]*)\$\{[^`]*\}([a-z_]*)`/g)) {
    if (!modules.has(head.split('.')[0])) continue;
    const found = keys.filter((key) => key.startsWith(head) && key.endsWith(tail));
    if (found.length) for (const key of found) used.add(key);
    else unknown.push(`${head}…${tail}`);
  }
  assert.deepEqual(unknown, [], 'keys without a text');
  assert.deepEqual(keys.filter((key) => !used.has(key)), [], 'texts without a use');
});

test('the page speaks the first language that it has', () => {
  assert.equal(choose(['pt-BR', 'de-AT', 'en']), 'de');
  assert.equal(choose(['KO']), 'ko');
  assert.equal(choose(['pt', '']), 'en');
  assert.equal(choose([]), 'en');
});

test('plurals, numbers and names follow the language', () => {
  const crowd = (tag, count) => speaker(tag, texts[tag])('call.crowd', { count });
  assert.deepEqual([crowd('en', 1), crowd('en', 1500)], ['1 person', '1,500 people']);
  assert.match(crowd('de', 1500), /^1\.500 /);
  const arabic = [1, 2, 3, 11, 100].map((count) => crowd('ar', count));
  assert.equal(new Set(arabic).size, 5, arabic.join(' '));
  assert.match(crowd('ar', 11), /^11/, 'with the digits of the clocks');
  assert.equal(t('call.joined', { name: 'Ann' }), 'Ann joined', 'English in Node.js');
  assert.match(speaker('ar', texts.ar)('call.joined', { name: 'Ann' }), /\u2068Ann\u2069/, 'isolated from the sentence');
  assert.equal(t('no.such_key'), 'no.such_key');
});

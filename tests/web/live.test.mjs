// The states of the page /live/{room}: `node --test tests/web/live.test.mjs`.

import assert from 'node:assert/strict';
import { cp, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, test } from 'node:test';
import { fileURLToPath, pathToFileURL } from 'node:url';

// The server marks the files as modules by content type; Node.js needs a package.json.
const copy = await mkdtemp(path.join(tmpdir(), 'commingle-live-'));
after(() => rm(copy, { recursive: true }));
await cp(fileURLToPath(new URL('../../assets/web', import.meta.url)), copy, { recursive: true });
await writeFile(path.join(copy, 'package.json'), '{"type":"module"}');
const { advise, linkTo, nextTry, verdict } = await import(pathToFileURL(path.join(copy, 'live-state.js')).href);

const newcomer = { hasPlayed: false, hasToken: false };

test('an answer of the server means a state', () => {
  assert.equal(verdict(200, '#EXTM3U\n#EXTINF:2,\n1.m4s\n', newcomer), 'live');
  assert.equal(verdict(200, '#EXTM3U\n#EXTINF:2,\n1.m4s\n#EXT-X-ENDLIST\n', newcomer), 'ended');
  assert.equal(verdict(404, '', newcomer), 'waiting');
  assert.equal(verdict(404, '', { ...newcomer, hasPlayed: true }), 'ended');
  assert.equal(verdict(503, '', newcomer), 'waiting');
  assert.equal(verdict(500, '', newcomer), 'unreachable');
  assert.equal(verdict(502, '', newcomer), 'unreachable');
  assert.equal(verdict(400, '', newcomer), 'misnamed');
});

test('a refused token is told, a missing one is not a fault of the viewer', () => {
  for (const status of [401, 403]) {
    assert.equal(verdict(status, '', { ...newcomer, hasToken: true }), 'denied');
    assert.equal(verdict(status, '', newcomer), 'waiting');
    assert.equal(verdict(status, '', { ...newcomer, hasPlayed: true }), 'ended');
  }
});

test('each state says something, and an unreachable server keeps the picture', () => {
  const states = ['connecting', 'waiting', 'buffering', 'blocked', 'ended', 'unreachable', 'denied', 'misnamed'];
  for (const state of states) {
    const { headline, banner } = advise(state, { ...newcomer, audioOnly: false });
    assert.ok(headline || banner, state);
  }
  assert.equal(advise('unreachable', { hasPlayed: true, hasToken: false, audioOnly: false }).headline, '');
  assert.match(advise('waiting', { ...newcomer, audioOnly: false }).advice, /invitation/);
  assert.throws(() => advise('nonsense', { ...newcomer, audioOnly: false }));
});

test('questions get rarer, never stop, and are spread', () => {
  for (const state of ['waiting', 'ended', 'unreachable']) {
    assert.ok(nextTry(state, 0, 0) >= 750 && nextTry(state, 0, 1) <= 2_500);
    assert.ok(nextTry(state, 1_000, 0) >= 7_500 && nextTry(state, 1_000, 1) <= 12_500);
  }
});

test('the shared link has the credentials that it is given and nothing else', () => {
  const at = { origin: 'https://a.example', pathname: '/live/k%C3%BCche', search: '?session=secret' };
  assert.equal(linkTo(at, ''), 'https://a.example/live/k%C3%BCche');
  assert.equal(linkTo(at, '?token=x'), 'https://a.example/live/k%C3%BCche?token=x');
});

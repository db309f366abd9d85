// The address that <commingle-call> opens.

import assert from 'node:assert/strict';
import test from 'node:test';
import { addressOf } from '../../assets/web/commingle-call.js';

const none = { room: null, token: null, name: null, lang: null, watch: null, view: null, 'self-view': null };
const address = (more) => addressOf('https://calls.example.org', { ...none, ...more });

test('no room, no page', () => {
  assert.equal(address({}), '');
  assert.equal(address({ room: '' }), '');
});

test('attributes become parameters, and are escaped', () => {
  assert.equal(address({ room: 'daily' }), 'https://calls.example.org/?room=daily');
  const url = new URL(address({ room: '会議室', token: 'a&b', name: 'Ann = B', lang: 'ko', 'self-view': 'hidden' }));
  assert.deepEqual(Object.fromEntries(url.searchParams), {
    room: '会議室',
    token: 'a&b',
    name: 'Ann = B',
    lang: 'ko',
    self_view: 'hidden',
  });
});

test('watch is a boolean attribute', () => {
  assert.ok(new URL(address({ room: 'r', watch: '' })).searchParams.has('watch'));
  assert.ok(!new URL(address({ room: 'r', watch: 'false' })).searchParams.has('watch'));
});

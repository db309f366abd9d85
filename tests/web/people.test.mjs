// The pure parts of chat, moderation and captions, without a browser: `node --test tests/web/people.test.mjs`.

import assert from 'node:assert/strict';
import { cp, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, test } from 'node:test';
import { fileURLToPath, pathToFileURL } from 'node:url';

// The server marks the files as modules by content type; Node.js needs a package.json.
const copy = await mkdtemp(path.join(tmpdir(), 'commingle-people-'));
after(() => rm(copy, { recursive: true }));
await cp(fileURLToPath(new URL('../../assets/web', import.meta.url)), copy, { recursive: true });
await writeFile(path.join(copy, 'package.json'), '{"type":"module"}');
const load = (name) => import(pathToFileURL(path.join(copy, name)).href);

const { applyEvent } = await load('wire.js');
const log = await load('chat-log.js');
const moderation = await load('moderation.js');
const { CaptionLines } = await load('caption-lines.js');
const { explain } = await load('problems.js');
const { placeOf } = await load('tiles.js');
const { moved } = await load('toolbar.js');

const message = (id, more = {}) => ({
  id,
  at: new Date(Date.UTC(2026, 11, 1, 2, 0, id)).toISOString(),
  participant: 'p1',
  name: 'Ann',
  text: `text ${id}`,
  ...more,
});

test('messages are kept once, in the order of time, and only so many', () => {
  const chat = new log.ChatLog();
  assert.equal(chat.add([message(2), message(1)]).length, 2);
  assert.deepEqual(chat.add([message(2), message(3)]).map(({ id }) => id), [3], 'the history repeats known ones');
  assert.deepEqual(chat.messages.map(({ id }) => id), [1, 2, 3]);
  const again = message(1, { at: '2026-12-02T00:00:00.000Z' });
  assert.equal(chat.add([again]).length, 1, 'a new room begins with the id 1 again');
  chat.add(Array.from({ length: 700 }, (_, n) => message(n + 10)));
  assert.equal(chat.messages.length, 500);
  assert.equal(chat.messages.at(-1).at, again.at, 'the oldest ones are dropped');
});

test('messages of one sender to one audience are a group', () => {
  const late = message(5, { at: '2026-12-01T02:30:00.000Z' });
  const [third, fourth] = [message(3, { to: ['p2'] }), message(4, { participant: 'p2' })];
  const found = log.groups([message(1), message(2), third, fourth, late]);
  assert.deepEqual(found.map((group) => group.map(({ id }) => id)), [[1, 2], [3], [4], [5]]);
  assert.deepEqual([log.isPrivate(message(1)), log.isPrivate(message(1, { to: 'moderators' }))], [false, true]);
});

test('only links of http and https become links, without the punctuation around them', () => {
  const links = (text) => log.pieces(text).filter(({ href }) => href).map(({ href }) => href);
  assert.deepEqual(links('see https://a.example/x?y=1, or (http://b.example/p_(q)).'), [
    'https://a.example/x?y=1',
    'http://b.example/p_(q)',
  ]);
  for (const text of ['javascript:alert(1)', 'data:text/html,x', 'https://user:pass@bank.example/', 'https://', 'a.b'])
    assert.deepEqual(links(text), [], text);
  for (const text of ['', '<b>x</b>', 'https://a.example and http://b.example', 'x https://a.example/<y>', 'https://…'])
    assert.equal(log.pieces(text).map((piece) => piece.text).join(''), text, 'nothing of a text is lost');
});

test('a person in the lobby waits outside of the list until it is admitted', () => {
  const zoe = { id: 'p9', name: 'Zoe', state: 'lobby' };
  let room = applyEvent({ participants: [{ id: 'p1' }], hands: [], version: 1 }, { type: 'lobby', participant: zoe });
  assert.deepEqual([room.participants.length, room.waiting], [1, [zoe]]);
  room = applyEvent(room, { type: 'updated', participant: { id: 'p9', state: 'lobby', name: 'Zoë' } });
  assert.deepEqual([room.participants.length, room.waiting[0].name], [1, 'Zoë']);
  const admitted = applyEvent(room, { type: 'joined', participant: { id: 'p9', state: 'in', name: 'Zoë' } });
  assert.deepEqual([admitted.participants.length, admitted.waiting], [2, []]);
  const refused = applyEvent(room, { type: 'left', participant: 'p9', reason: 'removed' });
  assert.deepEqual([refused.participants.length, refused.waiting], [1, []]);
});

test('hands are a queue', () => {
  let room = { participants: [{ id: 'p1' }, { id: 'p2' }], views: [] };
  const at = '2026-12-01T02:00:00.000Z';
  for (const id of ['p2', 'p1', 'p2']) room = applyEvent(room, { type: 'hand', participant: id, raised_at: at });
  assert.deepEqual(room.hands, ['p1', 'p2']);
  assert.equal(room.participants[1].hand_raised_at, at);
  room = applyEvent(room, { type: 'hand', participant: 'p1', raised_at: null });
  assert.deepEqual([room.hands, room.participants[0].hand_raised_at], [['p2'], undefined]);
  assert.deepEqual(applyEvent(room, { type: 'left', participant: 'p2' }).hands, []);
});

const sends = [{ kind: 'microphone' }, { kind: 'camera' }];
const me = { id: 'p1', role: 'moderator' };
const actions = (person, more = {}) =>
  moderation
    .actionsFor({
      room: {},
      me,
      moderates: true,
      pinned: null,
      person: { role: 'participant', sends, ...person },
      ...more,
    })
    .flat();

test('the menu of a person has what is possible now', () => {
  const bob = actions({ id: 'p2' });
  const possible = 'pin write rename mute stop_camera pin_all spotlight make_moderator remove'.split(' ');
  for (const action of possible)
    assert.ok(bob.includes(action), action);
  assert.ok(!bob.includes('ask') && !bob.includes('lower') && !bob.includes('allow'));
  const muted = actions({ id: 'p2', muted_by: 'p1', hand_raised_at: 'x', speaker_allowed: false });
  for (const action of ['ask', 'release', 'lower', 'allow']) assert.ok(muted.includes(action), action);
  assert.ok(!muted.includes('mute'));
  assert.deepEqual(actions({ id: 'p2' }, { moderates: false, me: { id: 'p3' } }), ['pin', 'write']);
  assert.deepEqual(actions({ id: 'p3' }, { moderates: false, me: { id: 'p3' } }), ['raise', 'rename']);
  assert.ok(!actions({ id: 'p1', role: 'moderator' }).includes('remove'), 'nobody removes oneself');
  assert.ok(!actions({ id: 'p2', role: 'operator' }).includes('make_participant'), 'only up to the own role');
});

test('actions are requests of the API', () => {
  const room = { layout: { kind: 'grid', gap: 8, pinned: ['p3'] } };
  const body = (action) => moderation.requestFor(action, 'p2', room).body;
  assert.deepEqual(body('mute'), { audio_muted: true });
  assert.deepEqual(body('pin_all'), { layout: { kind: 'grid', gap: 8, pinned: ['p3', 'p2'] } });
  assert.deepEqual(body('spotlight'), { layout: { kind: 'spotlight', gap: 8, pinned: ['p2'] } });
  assert.equal(moderation.requestFor('admit', 'p2', room).path, '/v1/rooms/{room}/participants/p2/admit');
  assert.equal(moderation.requestFor('remove', 'p2', room), null);
  assert.equal(moderation.removal('p2', 600).path, '/v1/rooms/{room}/participants/p2?keep_out=600');
  assert.equal(moderation.removal('p2', 0).path, '/v1/rooms/{room}/participants/p2');
});

test('a field of the settings is a change of the room', () => {
  const change = (name, type, value, checked = false) => moderation.changeOf({ name, type, value, checked });
  assert.deepEqual(change('lobby', 'checkbox', 'on', true), { lobby: true });
  assert.deepEqual(change('chat', 'radio', 'moderators', true), { who_may: { chat: 'moderators' } });
  assert.deepEqual(change('title', 'text', ' Review '), { title: 'Review' });
  assert.deepEqual(change('title', 'text', ' '), { title: null });
  assert.deepEqual(change('max_participants', 'number', '12'), { max_participants: 12 });
  const at = '2026-12-01T10:30';
  assert.deepEqual(change('ends_at', 'datetime-local', ''), { ends_at: null });
  const sent = change('ends_at', 'datetime-local', at).ends_at;
  assert.equal(moderation.localValue(sent), at, 'shown as it was entered');
  assert.equal(moderation.localValue(undefined), '');
});

test('people are told what has changed for them', () => {
  const told = (before, more) => moderation.changesOfSelf(before, { ...before, ...more });
  const ann = { id: 'p1', role: 'participant', state: 'in' };
  assert.deepEqual(told({ ...ann, state: 'lobby' }, { state: 'in' }), ['notice.admitted']);
  assert.deepEqual(told(ann, { role: 'moderator' }), ['notice.promoted_moderator']);
  assert.deepEqual(told(ann, { role: 'viewer' }), ['notice.demoted_viewer']);
  assert.deepEqual(told({ ...ann, speaker_allowed: false }, { speaker_allowed: true }), ['notice.may_speak']);
  assert.deepEqual(told(ann, { audio_muted: true }), []);
  assert.deepEqual(moderation.changesOfSelf(null, ann), []);
});

test('a device that may not be turned on has a reason', () => {
  const why = (kind, self, who = {}, moderates = false) =>
    moderation.refusalOf(kind, { self: { id: 'p1', ...self }, room: { who_may: who }, moderates });
  assert.equal(why('audio', {}), null);
  assert.equal(why('audio', { muted_by: 'p2' }), 'notice.muted_stays');
  assert.equal(why('video', { video_stopped_by: 'p2' }), 'notice.camera_stays');
  assert.equal(why('audio', {}, { unmute: 'moderators' }), 'notice.may_not_unmute');
  assert.equal(why('audio', {}, { unmute: 'moderators' }, true), null);
  assert.equal(why('screen', {}, { share: 'moderators' }), 'notice.may_not_share');
  assert.equal(why('video', { speaker_allowed: false }), 'notice.listens');
});

test('the refusals of moderation are explained', () => {
  const told = (code, retryAfter = 0) =>
    explain({ message: 'raw', status: 403, problem: { code }, retryAfter }, { room: 'daily' });
  assert.match(told('kept_out', 540_000).text, /“daily”.*in 9 minutes/);
  assert.match(told('kept_out', 86_400_000).text, /in 24 hours/);
  assert.match(told('kept_out').text, /later/);
  assert.match(told('not_open_yet').text, /not open yet/);
  assert.deepEqual(told('room_over').actions, ['room']);
  const kinds = ['speak', 'share', 'chat', 'unmute'].map((what) => `not_allowed_to_${what}`);
  for (const code of ['proxy', 'origin', 'in_lobby', 'muted_by_moderator', ...kinds])
    assert.notEqual(told(code).text, 'raw', code);
});

test('captions are the latest words of the latest speakers', () => {
  const lines = new CaptionLines();
  const say = (participant, text, final, now) => lines.add({ participant, name: participant, text, final }, now);
  const texts = (now) => lines.at(now).map(({ text }) => text);
  say('p1', 'good', false, 0);
  say('p1', 'good morning.', true, 500);
  assert.deepEqual(texts(600), ['good morning.'], 'a final text replaces the preliminary one');
  say('p1', 'Let us', false, 900);
  say('p1', 'Let us begin.', true, 1200);
  assert.deepEqual(texts(1300), ['good morning. Let us begin.']);
  say('p2', 'Yes', true, 2000);
  say('p3', 'No', true, 2100);
  assert.deepEqual(texts(2200), ['Yes', 'No'], 'two speakers');
  assert.deepEqual(texts(9000), []);
  say('p1', 'word '.repeat(100), true, 9000);
  assert.ok(texts(9000)[0].length <= 161 && texts(9000)[0].startsWith('…'));
});

test('a sign is on the tile wherever the picture is in its box', () => {
  const canvas = { width: 1280, height: 720 };
  const tile = { x: 640, y: 0, width: 640, height: 360 };
  const place = placeOf(tile, canvas, { width: 1280, height: 1440 });
  assert.deepEqual(place, { x: 0.5, y: 0.25, width: 0.5, height: 0.25 });
});

test('controls move into the menu only if they do not fit, and More takes space too', () => {
  const widths = [60, 60, 60];
  assert.equal(moved(380, 200, widths, 60), 0);
  assert.equal(moved(379, 200, widths, 60), 2, 'one for the lack of space, one for More');
  assert.equal(moved(100, 200, widths, 60), 3);
});

// The pure functions of the page, without a browser: `node --test tests/web/modules.test.mjs`.

import assert from 'node:assert/strict';
import { cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, test } from 'node:test';
import { fileURLToPath, pathToFileURL } from 'node:url';

// The server marks the files as modules by content type; Node.js needs a package.json.
const copy = await mkdtemp(path.join(tmpdir(), 'commingle-web-'));
after(() => rm(copy, { recursive: true }));
await cp(fileURLToPath(new URL('../../assets/web', import.meta.url)), copy, { recursive: true });
await writeFile(path.join(copy, 'package.json'), '{"type":"module"}');
const load = (name) => import(pathToFileURL(path.join(copy, name)).href);

const events = await load('events.js');
const server = await load('server.js');
const wire = await load('wire.js');
const layers = await load('layers.js');
const stage = await load('stage.js');
const names = await load('names.js');
const problems = await load('problems.js');
const quality = await load('quality.js');
const closeup = await load('closeup.js');
const devices = await load('devices.js');
const muted = await load('muted.js');
const soundcheck = await load('soundcheck.js');
const watched = await load('watched.js');
const layouts = await load('layouts.js');

const SDP = [
  'v=0',
  'a=group:BUNDLE 0 1',
  'm=audio 5004 UDP/TLS/RTP/SAVPF 111',
  'a=ice-ufrag:old1',
  'a=ice-pwd:oldpassword',
  'a=mid:0',
  'a=candidate:1 1 udp 1 10.0.0.1 1 typ host',
  'a=end-of-candidates',
  'm=video 9 UDP/TLS/RTP/SAVPF 96',
  'a=ice-ufrag:old1',
  'a=ice-pwd:oldpassword',
  'a=mid:1',
  '',
].join('\r\n');
const candidate = (text, more) => ({ candidate: `candidate:${text}`, ...more });

test('a trickle fragment has the credentials and each candidate in its section', () => {
  assert.deepEqual(wire.iceCredentials(SDP), { ufrag: 'old1', pwd: 'oldpassword' });
  const head = 'a=ice-ufrag:old1\r\na=ice-pwd:oldpassword\r\n';
  const audio = 'm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\n';
  const video = 'm=video 9 UDP/TLS/RTP/SAVPF 96\r\na=mid:1\r\n';
  assert.equal(wire.trickleFragment(SDP, []), head + audio);
  assert.equal(
    wire.trickleFragment(
      SDP,
      [candidate('b', { sdpMid: '1' }), candidate('a', { sdpMid: null, sdpMLineIndex: 0 })],
      true,
    ),
    `${head}${audio}a=candidate:a\r\n${video}a=candidate:b\r\na=end-of-candidates\r\n`,
  );
});

test('the local address is that of the selected candidate pair', () => {
  const stats = new Map([
    ['t', { id: 't', type: 'transport', selectedCandidatePairId: 'p' }],
    ['p', { id: 'p', type: 'candidate-pair', localCandidateId: 'l' }],
    ['l', { id: 'l', type: 'local-candidate', address: '10.0.0.1' }],
  ]);
  assert.equal(wire.sentFrom(stats), '10.0.0.1');
  stats.delete('t'); // as in Firefox
  assert.equal(wire.sentFrom(stats), null);
});

test('a screen is marked in its own section only', () => {
  const marked = wire.markScreen(SDP, '1');
  assert.equal(marked, SDP.replace('a=mid:1\r\n', 'a=mid:1\r\na=content:slides\r\n'));
  assert.equal(wire.markScreen(SDP, '7'), SDP);
});

test('a restarted answer has the new credentials everywhere and the new candidates once', () => {
  const fragment =
    'a=ice-ufrag:new2\r\na=ice-pwd:newpassword\r\na=candidate:9 1 udp 1 10.0.0.9 9 typ host\r\na=end-of-candidates\r\n';
  const answer = wire.restartedAnswer(SDP, fragment);
  assert.equal(answer.match(/a=ice-ufrag:new2\r\n/g).length, 2);
  assert.doesNotMatch(answer, /old|10\.0\.0\.1 /);
  assert.match(answer, /a=mid:0\r\na=candidate:9 .*\r\na=end-of-candidates\r\nm=video/);
  assert.equal(answer.match(/a=candidate/g).length, 1);
  assert.equal(wire.restartedAnswer(answer, fragment), answer, 'applying a fragment twice changes nothing');
});

test('ICE servers are read from Link headers', () => {
  const header =
    '<stun:a:1>; rel="ice-server", <https://b>; rel="next", <turn:c:3?transport=udp>; rel="ice-server"; ' +
    'username="u, \\"x\\""; credential="p"; credential-type="password"';
  assert.deepEqual(wire.iceServersOf(header), [
    { urls: 'stun:a:1' },
    { urls: 'turn:c:3?transport=udp', username: 'u, "x"', credential: 'p' },
  ]);
  assert.deepEqual(wire.iceServersOf(null), []);
});

test('Retry-After is seconds or a date', () => {
  const now = Date.parse('Wed, 21 Oct 2026 07:28:00 GMT');
  for (const [header, wait] of [
    ['2', 2000],
    [' 10 ', 10_000],
    ['0', 0],
    ['Wed, 21 Oct 2026 07:28:30 GMT', 30_000],
    ['Wed, 21 Oct 2026 07:27:00 GMT', 0],
    ['soon', 0],
    ['-5', 0],
    ['', 0],
    [null, 0],
    [undefined, 0],
    ['9'.repeat(400), 0],
  ])
    assert.equal(wire.retryAfter(header, now), wait, String(header));
});

test('events return a new room document', () => {
  const before = { type: 'room', version: 3, name: 'r', participants: [{ id: 'p1', name: 'Ann' }], views: [] };
  const room = wire.applyEvent({}, before);
  const frozen = JSON.stringify(room);
  let now = room;
  const apply = (event) => {
    now = wire.applyEvent(now, event);
  };
  apply({ type: 'joined', version: 4, participant: { id: 'p2', name: 'Bob' } });
  apply({ type: 'updated', version: 5, participant: { id: 'p1', audio_muted: true } });
  assert.deepEqual(now.participants, [
    { id: 'p1', name: 'Ann', audio_muted: true },
    { id: 'p2', name: 'Bob' },
  ]);
  const reduced = { opus_complexity: 1, talkers_max: 12 };
  assert.deepEqual(
    wire.applyEvent(now, { type: 'mixer', state: 'audio_reduced', audio_reduced: reduced }).audio_reduced,
    reduced,
  );
  assert.equal(wire.applyEvent({ audio_reduced: reduced }, { type: 'mixer', state: 'audio_full' }).audio_reduced, null);
  const overlay = { id: 'v1', kind: 'text', text: 'a', state: 'shown' };
  const shown = wire.applyEvent(wire.applyEvent(now, { type: 'overlay', overlay }), {
    type: 'overlay',
    overlay: { ...overlay, text: 'b' },
  });
  assert.deepEqual(shown.overlays, [{ ...overlay, text: 'b' }]);
  const ended = wire.applyEvent(shown, { type: 'overlay', overlay: { ...overlay, state: 'ended' } });
  assert.deepEqual(ended.overlays, []);
  apply({ type: 'speaker', version: 6, participant: 'p2', speaking: ['p2'] });
  const more = { count: 2, x: 0, y: 0, width: 2, height: 2 };
  const first = { view: 'program', kind: 'grid', canvas: { width: 4, height: 2 }, tiles: [], more };
  apply({ type: 'layout', version: 7, ...first });
  assert.deepEqual(now.views, [first]);
  apply({ type: 'layout', version: 8, view: 'program', kind: 'grid', canvas: { width: 8, height: 4 }, tiles: [] });
  assert.deepEqual(now.views, [{ view: 'program', kind: 'grid', canvas: { width: 8, height: 4 }, tiles: [] }]);
  apply({ type: 'left', version: 9, participant: 'p2', reason: 'removed' });
  assert.deepEqual([now.participants.map((p) => p.id), now.speaker, now.version], [['p1'], 'p2', 9]);
  apply({ type: 'levels', levels: [{ participant: 'p1', dbov: -30 }] });
  assert.equal(now.version, 9, 'levels have no version');
  assert.equal(JSON.stringify(room), frozen, 'documents are immutable');
});

test('the statistics of a second are summarised', () => {
  const report = (entries) => new Map(entries.map((entry) => [entry.id, entry]));
  const video = {
    id: 'v',
    type: 'inbound-rtp',
    kind: 'video',
    codecId: 'c',
    framesReceived: 9,
    framesPerSecond: 29.6,
    packetsLost: 2,
  };
  const before = report([{ ...video, timestamp: 1000, bytesReceived: 0 }]);
  const now = report([
    { ...video, timestamp: 2000, bytesReceived: 125_000 },
    { id: 'a', type: 'inbound-rtp', kind: 'audio', timestamp: 2000, bytesReceived: 1, packetsLost: -1 },
    { id: 'c', type: 'codec', mimeType: 'video/VP8' },
    { id: 'p', type: 'candidate-pair', nominated: true, state: 'succeeded', currentRoundTripTime: 0.0123 },
  ]);
  const { kbpsDown, fps, codec, packetsLost, rtt, streams } = wire.summarise(now, before);
  assert.deepEqual(
    { kbpsDown, fps, codec, packetsLost, rtt, streams },
    { kbpsDown: 1000, fps: 30, codec: 'VP8', packetsLost: 2, rtt: 12, streams: 1 },
  );
  assert.equal(wire.summarise(now, null).kbpsDown, 0);
  assert.equal(wire.summarise(new Map(), null).rtt, null);
});

test('the camera is scaled down to its tile and never enlarged', () => {
  assert.equal(wire.scaleFor(1280, 720, { width: 640, height: 360 }), 2);
  assert.equal(wire.scaleFor(640, 360, { width: 1280, height: 720 }), 1);
  assert.equal(wire.scaleFor(1280, 720, { width: 640, height: 180 }), 2, 'the larger side decides');
  assert.equal(wire.scaleFor(1280, 720, undefined), 1);
});

test('in a room of many tiles the smallest encoding that fits is sent, beside the one that is decoded', () => {
  const tiles = [1, 4, 5, 25].map((n) => [1, 1.2, 2, 3, 5].map((scale) => layers.encodingFor(scale, 3, n)));
  assert.deepEqual(tiles, [Array(5).fill(2), Array(5).fill(2), [2, 2, 1, 0, 0], [2, 2, 1, 0, 0]]);
  assert.equal(layers.encodingFor(5, 1, 25), 0, 'without simulcast there is one');
  const active = (encodings) => encodings.filter((one) => one.active).map((one) => one.rid);
  assert.deepEqual(active(layers.ENCODINGS), ['f']);
  const both = layers.fitEncodings(layers.ENCODINGS, { index: 0, scale: 5, kept: 'f' });
  assert.deepEqual(active(both), ['q', 'f']);
  assert.equal(both[0].scaleResolutionDownBy, 5);
  assert.equal(layers.fitEncodings(both, { index: 0, scale: 5.01, kept: 'f' }), null, 'much the same');
  assert.deepEqual(active(layers.fitEncodings(both, { index: 0, scale: 5, kept: 'q' })), ['q']);
  const one = [{ active: true }];
  assert.equal(layers.fitEncodings(one, { index: 0, scale: 1, kept: undefined }), null);
  assert.equal(layers.fitEncodings(one, { index: 0, scale: 2, kept: undefined })[0].scaleResolutionDownBy, 2);
});

test('the size that the server needs of a source is kept in its document', () => {
  const sends = [{ kind: 'microphone' }, { kind: 'camera' }];
  const room = { participants: [{ id: 'p1', sends }, { id: 'p2', sends }] };
  const event = { type: 'wanted', participant: 'p2', source: 'camera', width: 427, height: 240 };
  const [first, second] = wire.applyEvent(room, event).participants;
  assert.deepEqual(first.sends, sends);
  assert.deepEqual(second.sends[1], { kind: 'camera', wanted: { width: 427, height: 240 } });
});

test('video is cropped unless this loses more than 30 percent', () => {
  const tile = { width: 640, height: 360 };
  assert.equal(stage.fit(1280, 720, tile), 'cover');
  assert.equal(stage.fit(640, 480, tile), 'cover', 'a quarter is lost');
  assert.equal(stage.fit(480, 640, tile), 'contain');
  assert.equal(stage.fit(0, 0, tile), 'cover', 'the size is not known yet');
  assert.equal(stage.fit(480, 640, { ...tile, fit: 'cover' }), 'cover');
  assert.equal(stage.fit(1280, 720, { ...tile, fit: 'contain' }), 'contain');
  assert.deepEqual(stage.contentBox(100, 100, 2), { x: 0, y: 25, width: 100, height: 50 });
  assert.deepEqual(stage.contentBox(400, 100, 1), { x: 150, y: 0, width: 100, height: 100 });
});

test('initials are those of the mixer, and colours follow the id', () => {
  assert.deepEqual(
    ['Ann', 'ann b. clark', ' 李 明', '', 'K-H', '(Zoë) Ångström', '🎈', 'J. "Joe" Q_x'].map((name) =>
      names.initials(name),
    ),
    ['A', 'AC', '李明', '?', 'KH', 'ZÅ', '🎈', 'JX'],
  );
  assert.equal(names.hueOf('p1'), names.hueOf('p13'), 'there are twelve colours');
  assert.equal(names.nameOf({ id: 'p7', name: ' ' }), 'Guest 7');
  assert.equal(names.nameOf({ id: 'p7', name: 'A', display_name: 'Ann' }), 'Ann', 'the mixer draws this name');
  assert.equal(names.initialsOf({ id: 'p7', name: 'Ann', initials: 'X' }), 'X');
  assert.equal(names.initialsOf({ id: 'p7', name: 'Ann' }), 'A');
  assert.equal(names.labelOf({ name: 'Ann' }, 'screen'), 'Ann’s screen');
  assert.equal(names.labelOf({ name: 'Ann' }), 'Ann');
});

test('room names have letters of any script, and others are refused with the reason', () => {
  for (const name of ['daily-standup_7', 'Küche', 'каждый-день', '会議室', 'दैनिक', 'x'.repeat(64), '٣', ' daily '])
    assert.equal(names.wrongRoomName(name), null, name);
  /** @type {[string, RegExp][]} */
  const refused = [
    ['', /Enter a room name/],
    ['my room', /spaces/],
    ['a/b', /“\/”/],
    ['café?', /“\?”/],
    ['x'.repeat(65), /65 characters/],
    ['a\u200bb', /invisible/],
    ['\u3164', /invisible/],
    ['\u0301a', /accent without a letter/],
    ['½', /“½”/],
    ['🎈', /“🎈”/],
  ];
  for (const [name, why] of refused)
    assert.match(names.wrongRoomName(name) ?? '', why, name);
  assert.equal(names.tidyRoomName(' Ku\u0308che '), 'Küche', 'typed accents are composed');
  assert.equal(names.suggestRoomName(' my room! '), 'my-room');
  assert.equal(names.suggestRoomName('🎈'), null);
  for (let i = 0; i < 50; i += 1) assert.match(names.freshRoomName(), /^[a-z]+-[a-z]+-\d\d$/);
});

test('links to rooms and invitations are read and written', () => {
  const none = { room: '', token: '', watch: false };
  /** @type {[string, typeof none | null][]} */
  const links = [
    ['https://x.example/K%C3%BCche?token=a.b.c', { ...none, room: 'Küche', token: 'a.b.c' }],
    ['https://x.example/?room=daily%20x&name=A', { ...none, room: 'daily x' }],
    ['https://x.example/daily?watch', { ...none, room: 'daily', watch: true }],
    ['www.x.example/daily', { ...none, room: 'daily' }],
    ['https://x.example/%E0', { ...none, room: '%E0' }],
    ['https://x.example/a/b', none],
    ['daily', null],
    ['https://', null],
  ];
  for (const [text, link] of links)
    assert.deepEqual(names.readLink(text), link, text);
  assert.equal(names.readInvitation('https://x.example/daily?token=a.b.c').token, 'a.b.c');
  assert.equal(names.readInvitation(' eyJh.eyJy.s-g_ ').token, 'eyJh.eyJy.s-g_');
  for (const text of ['hello', 'https://x.example/daily', 'a b.c.d'])
    assert.equal(names.readInvitation(text), null, text);
  const query = new URLSearchParams('room=x&watch&tier=low');
  assert.equal(names.pathOf('Küche', query), '/K%C3%BCche?watch&tier=low');
  assert.equal(names.pathOf('metrics', query), '/?room=metrics&watch&tier=low', 'a path of the server');
  assert.equal(names.pathOf('daily'), '/daily');
  for (const room of ['Küche', 'v1', 'a_b-c'])
    assert.equal(names.readLink(`https://x.example${names.pathOf(room)}`).room, room, 'a written link is read');
});

test('refusals are explained to people, with a helpful button', () => {
  const codes = [
    'needs_token invalid_token token_expired wrong_room wrong_role viewer_may_not_send forbidden bad_room_name no_room',
    'room_locked room_full no_publisher too_many_joins too_many_requests overloaded draining offer',
    'internal_error',
  ]
    .join(' ')
    .split(' ');
  const attempt = { room: 'daily' };
  const detail = 'send `Authorization: Bearer TOKEN`';
  const refused = (code, status = 403, more = attempt) =>
    problems.explain(new server.JoinError(detail, status, { code }, 3500), more);
  for (const code of codes) {
    const { text, actions } = refused(code);
    assert.doesNotMatch(text, /Bearer|token|`|undefined|[a-z]_[a-z]/, code);
    assert.ok(actions.length > 0 && actions.every((action) => problems.ACTIONS.includes(action)), code);
  }
  assert.deepEqual(refused('needs_token').field, 'invitation');
  assert.ok(refused('token_expired').actions.includes('ask'));
  assert.ok(refused('viewer_may_not_send').actions.includes('watch'));
  assert.ok(refused('room_full').actions.includes('watch'));
  assert.ok(!refused('room_full', 503, { room: 'daily', watching: true }).actions.includes('watch'));
  assert.match(refused('overloaded', 503).text, /in 4 seconds/);
  // Proxies have their own error pages.
  assert.match(refused(undefined, 401).text, /invited people only/);
  assert.match(refused(undefined, 401, { ...attempt, hasToken: true }).text, /not valid/);
  assert.match(refused(undefined, 502).text, /busy/);
  assert.match(problems.explain(server.unreachable()).text, /cannot be reached/);
  const unknown = new server.JoinError('the URL is wrong', 422, { code: 'output' });
  assert.equal(problems.explain(unknown).text, 'the URL is wrong');
});

test('the quality of the connection is said with its reason', () => {
  const of = (more) => quality.linkQuality({ state: 'connected', tier: 'auto', receives: { tier: 'high' }, ...more });
  const stats = (loss, rtt) => ({ loss, rtt });
  /** @type {[object, string, RegExp][]} */
  const cases = [
    [{}, 'good', /is good/],
    [{ stats: stats(0.01, 80) }, 'good', /is good/],
    [{ receives: { tier: 'medium', limit: 'delay' } }, 'fair', /slow, so the picture is less sharp/],
    [{ receives: { tier: 'slides', limit: 'loss' } }, 'poor', /loses packets, so you get one picture per second/],
    [{ receives: { tier: 'audio', limit: 'receiver' } }, 'poor', /cannot receive more, so you get audio only/],
    [{ stats: stats(0.05, 80) }, 'fair', /5 % are missing/],
    [{ stats: stats(0.2, 900) }, 'poor', /20 % are missing/],
    [{ stats: stats(0, 1500) }, 'poor', /1\.5 s/],
    [{ tier: 'audio', receives: { tier: 'audio' } }, 'good', /You chose audio only/],
    [{ direct: true, receives: { tier: 'low', limit: 'loss' } }, 'good', /is good/],
    [{ audioReduced: { opus_complexity: 1, talkers_max: null } }, 'fair', /server is busy, so the sound/],
    [{ audioReduced: { opus_complexity: 1, talkers_max: 12 } }, 'fair', /only the 12 loudest people are heard/],
    [{ direct: true, audioReduced: { opus_complexity: 1, talkers_max: 12 } }, 'good', /is good/],
    [{ state: 'reconnecting' }, 'lost', /Reconnecting/],
    [{ state: 'reconnecting', unreachable: true }, 'lost', /cannot be reached/],
  ];
  for (const [more, level, reason] of cases) {
    const said = of(more);
    assert.equal(said.level, level, JSON.stringify(more));
    assert.match(said.reason, reason);
    assert.match(quality.qualityLabel(said.level), /^Connection: /);
  }
});

test('a tier without moving pictures is explained', () => {
  assert.equal(quality.stillNote('low', {}, {}), null);
  const limited = quality.stillNote('audio', { limit: 'delay' }, { tier: 'auto' });
  assert.equal(limited.title, 'Audio only');
  assert.match(limited.text, /connection is slow.*returns/);
  assert.match(quality.stillNote('slides', {}, { tier: 'slides' }).text, /You chose/);
  assert.match(quality.stillNote('audio', undefined, null).text, /You chose/, 'before the room lists the participant');
  assert.equal(quality.tierOf(null, 'audio'), 'audio');
  assert.equal(quality.tierOf(null, 'auto'), 'high');
  assert.equal(quality.tierOf({ receives: { tier: 'low' } }, 'audio'), 'low');
});

test('the loss of the last second is a share of its packets', () => {
  const report = (lost, received) =>
    new Map([['a', { id: 'a', type: 'inbound-rtp', kind: 'audio', packetsLost: lost, packetsReceived: received }]]);
  assert.equal(wire.summarise(report(30, 290), report(20, 200)).loss, 0.1);
  assert.equal(wire.summarise(report(19, 290), report(20, 200)).loss, 0, 'a late packet is no loss');
  assert.equal(wire.summarise(report(20, 200), report(20, 200)).loss, 0);
  assert.equal(wire.summarise(report(20, 200), null).loss, 0);
});

test('the enlarged tile is the screen, else the last speaker, never oneself', () => {
  const tile = (participant, source = 'camera') => ({ participant, source, x: 0, y: 0, width: 640, height: 360 });
  const view = { tiles: [tile('p1'), tile('p2'), tile('p3'), tile('p1', 'screen')] };
  const chosen = (tiles, speaker) => closeup.choose({ tiles }, { speaker }, 'p1');
  assert.equal(closeup.choose(view, { speaker: 'p3' }, 'p2').source, 'screen');
  assert.equal(chosen(view.tiles.slice(0, 3), 'p3').participant, 'p3');
  assert.equal(chosen(view.tiles.slice(0, 3), 'p1').participant, 'p2');
  assert.equal(chosen([tile('p1')], 'p1'), null);
  assert.equal(closeup.choose(null, {}, 'p1'), null);
  const camera = closeup.part({ ...tile('p2'), x: 640 }, { width: 400, height: 400 });
  assert.ok(Math.abs(camera.width - camera.height) < 0.01, 'cropped to the box');
  assert.ok(camera.x > 640 && camera.x + camera.width < 1280, 'inside the tile');
  assert.ok(camera.y + camera.height < 360 - 20, 'without the label');
  const whole = { x: 0, y: 0, width: 640, height: 360 };
  const screen = (size, fit = 'auto') =>
    closeup.part({ ...tile('p2', 'screen'), fit }, { width: 400, height: 400 }, size);
  assert.deepEqual(screen(null), { ...whole, labelled: true }, 'a screen is not cropped');
  assert.deepEqual(screen({ width: 1920, height: 1080 }), { ...whole, labelled: true }, 'the label is on the screen');
  assert.deepEqual(
    screen({ width: 1600, height: 400 }),
    { x: 0, y: 100, width: 640, height: 160, labelled: false },
    'without the bars and the label on them',
  );
  assert.deepEqual(
    screen({ width: 1280, height: 680 }),
    { x: 0, y: 10, width: 640, height: 350, labelled: true },
    'the whole label, which is partly on the screen',
  );
  assert.deepEqual(screen({ width: 1600, height: 400 }, 'cover'), { ...whole, labelled: true });
});

test('advice about devices says what to do', () => {
  const say = (audio, video) => devices.adviceFor({ audio, video });
  assert.equal(say('on', 'on'), '');
  assert.equal(say('on', 'off'), '');
  for (const bad of ['denied', 'busy', 'unplugged']) {
    assert.match(say(bad, 'on'), /microphone/, bad);
    assert.match(say('on', bad), /camera/, bad);
  }
  assert.match(say('denied', 'denied'), /address bar/);
  assert.match(say('none', 'none'), /Connect one/);
  assert.match(say('none', 'on'), /not hear you/);
  assert.match(devices.adviceInCall('audio', 'NotAllowedError'), /blocked.*address bar/);
  assert.match(devices.adviceInCall('video', 'NotReadableError'), /Another program/);
  assert.match(devices.adviceInCall('video', 'NotFoundError'), /No camera found/);
});

test('an error has the advice and the delay of the server', async () => {
  const answer = (status, body, headers) => new Response(JSON.stringify(body), { status, headers });
  const full = await server.refusal(
    answer(503, { title: 'Busy', detail: 'The room is full.' }, { 'Retry-After': '7' }),
  );
  assert.deepEqual(
    [full.message, full.status, full.retryAfter, full.temporary],
    ['The room is full.', 503, 7000, true],
  );
  const wrong = await server.refusal(answer(403, { title: 'Forbidden' }, { 'Retry-After': '7' }));
  assert.deepEqual([wrong.message, wrong.retryAfter, wrong.temporary], ['Forbidden', 7000, false], 'until when');
  assert.equal(
    (await server.refusal(answer(429, {}, { 'Retry-After': '86400' }))).retryAfter,
    60_000,
    'the delay is limited',
  );
  assert.match((await server.refusal(new Response('<html>', { status: 502 }))).message, /^The server answered 502/);
  assert.equal(server.unreachable().temporary, true);
});

test('retry delays increase, have jitter and honour the server', () => {
  const backoff = new server.Backoff();
  for (const whole of [500, 1000, 2000, 4000, 8000, 10_000, 10_000]) {
    const wait = backoff.next();
    assert.ok(wait >= whole / 2 && wait <= whole, `${wait} of ${whole}`);
  }
  assert.ok(backoff.next(30_000) >= 30_000);
  backoff.reset();
  assert.ok(backoff.next() <= 500);
});

test('the events reconnect while the session exists', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  const sockets = [];
  class FakeSocket {
    static OPEN = 1;

    readyState = 1;
    said = [];
    /** @type {(() => void) | undefined} */
    onclose;

    constructor(url) {
      this.url = url;
      sockets.push(this);
    }

    send(text) {
      this.said.push(text);
    }

    close() {
      this.readyState = 3;
      this.onclose?.();
    }
  }
  globalThis.WebSocket = /** @type {any} */ (FakeSocket);
  const log = [];
  let answer;
  const asked = {
    at: (path) => new URL(`https://server.example${path}`),
    fetch: async () => answer ?? Promise.reject(server.unreachable()),
  };
  const listening = new events.Events(asked, 'a b', 'https://server.example/v1/sessions/secret', {
    received: (event) => log.push(event.type),
    unreachable: () => log.push('unreachable'),
    ended: () => log.push('ended'),
  });
  const later = async () => {
    t.mock.timers.tick(10_000);
    await new Promise(setImmediate);
  };
  assert.equal(String(sockets[0].url), 'wss://server.example/v1/rooms/a%20b/events?session=secret');
  sockets[0].onmessage({ data: '{"type":"room"}' });
  assert.equal(listening.send({ type: 'chat' }), true);
  assert.deepEqual([log, sockets[0].said], [['room'], ['{"type":"chat"}']]);

  sockets[0].close(); // the server is unreachable, then reachable
  assert.equal(listening.send({ type: 'chat' }), false);
  await later();
  assert.deepEqual([log.splice(0), sockets.length], [['room', 'unreachable'], 1]);
  answer = { status: 200 };
  await later();
  assert.equal(sockets.length, 2);
  sockets[0].onmessage({ data: '{"type":"late"}' });
  listening.open(); // after a network change
  assert.deepEqual([sockets.length, sockets[1].readyState, log], [3, 3, []]);
  await later();
  assert.equal(sockets.length, 3, 'a replaced WebSocket is not reopened');

  sockets[2].close();
  answer = { status: 404 };
  await later();
  assert.deepEqual(log.splice(0), ['ended']);
  listening.open();
  listening.close();
  await later();
  assert.deepEqual([log, sockets.length], [[], 4], 'closed permanently');
});

test('the overlay of a tile follows the theme as the mixer does', () => {
  const room = { layout: { kind: 'grid' }, theme: { radius: 9, font_size: 200 } };
  assert.deepEqual(stage.styleOf(room), { radius: 9, fontSize: 200 });
  assert.equal(stage.styleOf({ ...room, layout: { kind: 'grid', radius: 0 } }).radius, 0);
  const tile = { width: 640, height: 360 };
  assert.deepEqual(stage.look(tile), stage.look(tile, stage.styleOf({})));
  assert.equal(stage.look(tile, { radius: 9, fontSize: 200 }).corner, 8);
  assert.equal(stage.look({ width: 40, height: 20 }, { radius: 64 }).corner, 10);
  assert.equal(stage.look(tile, { fontSize: 200 }).letters, stage.look(tile).letters * 2);
});

test('a link is poor if losses or delay leave only a small picture', () => {
  const link = (tier, limit, wanted = 'auto') => quality.linkOf({ tier: wanted, receives: { tier, limit } });
  assert.deepEqual([link('low', 'delay'), link('slides', 'loss'), link('audio', 'delay')], ['poor', 'poor', 'poor']);
  assert.deepEqual([link('medium', 'loss'), link('low', 'receiver'), link('high')], ['fair', 'good', 'good']);
  assert.equal(link('low', 'delay', 'low'), 'good', 'it was chosen');
  assert.equal(quality.linkOf({}), 'good');
});

test('a phone in portrait requests the canvas of the room upright, and others that of the room', () => {
  const room = { width: 1280, height: 720 };
  const wanted = (kind, portrait, canvas = room) => watched.request({ kind, portrait, canvas });
  assert.deepEqual(wanted(null, false), { view: 'program' });
  assert.deepEqual(wanted(null, true), { view: 'own', layout: null, canvas: '720x1280' });
  assert.deepEqual(wanted('speaker', true), { view: 'own', layout: 'speaker', canvas: '720x1280' });
  const pinned = { kind: 'speaker', pinned: 'p3', portrait: false, canvas: room };
  assert.deepEqual(watched.request(pinned).layout, { kind: 'speaker', pinned: ['p3'] });
  assert.deepEqual(wanted('speaker', false), { view: 'own', layout: 'speaker', canvas: null });
  for (const canvas of [{ width: 720, height: 720 }, { width: 360, height: 640 }])
    assert.deepEqual(wanted(null, true, canvas), { view: 'program' }, 'it is upright enough');
  assert.deepEqual(wanted(null, true, null), { view: 'program' }, 'it is not known yet');
});

test('the view in the URL of the page is requested as it is', () => {
  const of = (query) => watched.requestOf(new URLSearchParams(query));
  assert.equal(of('watch&tier=audio&self_view=hidden'), null);
  assert.deepEqual(of('view=stage'), { view: 'stage', layout: null, canvas: null });
  assert.deepEqual(of('canvas=640x360'), { view: 'own', layout: null, canvas: '640x360' });
  assert.deepEqual(of('layout=grid'), { view: 'own', layout: 'grid', canvas: null });
});

test('the tiles of a thumbnail are inside it, and overlap only for an inset', () => {
  const counts = { auto: 3, grid: 4, one_plus_5: 6, one_plus_7: 8, one_plus_9: 10, active: 1, picture_in_picture: 2 };
  for (const [kind, count] of Object.entries(counts)) assert.equal(layouts.thumbnail(kind).length, count, kind);
  for (const kind of [...Object.keys(counts), 'grid_fill', 'speaker', 'presentation', 'stage', 'side_by_side']) {
    const rects = layouts.thumbnail(kind);
    for (const [i, [x, y, width, height]] of rects.entries()) {
      assert.ok(x >= 0 && y >= 0 && x + width <= 32.001 && y + height <= 18.001, `${kind}: ${rects[i]}`);
      const meets = ([a, b, w, h]) => x < a + w - 0.001 && a < x + width - 0.001 && y < b + h - 0.001 && b < y + height - 0.001;
      const overlaps = rects.slice(i + 1).some(meets);
      assert.equal(overlaps, kind === 'picture_in_picture' && i === 0, `${kind}: ${rects[i]}`);
    }
  }
});

test('speech while muted gives a hint, noises do not, and hints are rare', () => {
  /** The times of the hints while the level is `level(ms)` for `ms`. */
  const hints = (level, ms) => {
    const detector = new muted.SpeechDetector();
    const found = [];
    for (let now = 0; now <= ms; now += 66) if (detector.hears(level(now), now)) found.push(now);
    return found;
  };
  const speech = (now) => (now % 400 < 260 ? 0.7 : 0.1); // syllables
  const [first, ...more] = hints(speech, 15_000);
  assert.ok(first > 400 && first < 1500, `the hint after ${first} ms`);
  assert.deepEqual(more, [], 'once in this time');
  assert.ok(hints(speech, 60_000).every((at, n, all) => n === 0 || at - all[n - 1] >= 20_000));
  assert.deepEqual(hints(() => 0.3, 20_000), [], 'a fan');
  assert.deepEqual(hints((now) => (now % 3000 < 150 ? 0.9 : 0), 20_000), [], 'a keyboard');
  const late = new muted.SpeechDetector();
  assert.deepEqual([0, 5000, 10_000].map((now) => late.hears(0.9, now)), [false, false, false], 'late timers');
});

test('devices have names, and a phone turns its camera', () => {
  const list = [
    { deviceId: 'a', label: 'Webcam C920 (046d:082d)' },
    { deviceId: 'b', label: '' },
  ];
  assert.deepEqual(devices.labelsOf(list, 'Camera'), [['a', 'Webcam C920'], ['b', 'Camera 2']]);
  const track = (facingMode) => ({ getSettings: () => ({ facingMode }) });
  const sides = ['user', 'environment', undefined].map((side) => devices.otherSide(track(side)));
  assert.deepEqual(sides, ['environment', 'user', 'environment']);
  assert.equal(devices.otherSide(undefined), 'environment');
});

test('a recording without speech is not played back', () => {
  assert.match(soundcheck.complaintAbout(0.05), /Nothing was heard/);
  assert.equal(soundcheck.complaintAbout(0.6), null);
});

test('the manifest names icons that exist, and the page refers to it', async () => {
  const web = new URL('../../assets/web/', import.meta.url);
  const manifest = JSON.parse(await readFile(new URL('manifest.webmanifest', web), 'utf8'));
  for (const { src, sizes, type } of manifest.icons) {
    const bytes = await readFile(new URL(src, web));
    if (type !== 'image/png') continue;
    assert.equal(`${bytes.readUInt32BE(16)}x${bytes.readUInt32BE(20)}`, sizes, src);
  }
  assert.ok(manifest.icons.some(({ purpose }) => purpose === 'maskable'));
  assert.match(await readFile(new URL('index.html', web), 'utf8'), /rel="manifest" href="manifest.webmanifest"/);
});

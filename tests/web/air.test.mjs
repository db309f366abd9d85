// Texts about recordings and broadcasts, and HLS playlists: `node --test tests/web/air.test.mjs`.

import assert from 'node:assert/strict';
import { cp, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, test } from 'node:test';
import { fileURLToPath, pathToFileURL } from 'node:url';

// The server marks the files as modules by content type; Node.js needs a package.json.
const copy = await mkdtemp(path.join(tmpdir(), 'commingle-air-'));
after(() => rm(copy, { recursive: true }));
await cp(fileURLToPath(new URL('../../assets/web', import.meta.url)), copy, { recursive: true });
await writeFile(path.join(copy, 'package.json'), '{"type":"module"}');
const load = (name) => import(pathToFileURL(path.join(copy, name)).href);

const air = await load('air.js');
const hls = await load('hls.js');
const wire = await load('wire.js');

test('durations and sizes are formatted for display and for screen readers', () => {
  assert.deepEqual([0, 7.9, 754, 3723, -1, NaN, undefined].map(air.clock), [
    '0:00',
    '0:07',
    '12:34',
    '1:02:03',
    '0:00',
    '0:00',
    '0:00',
  ]);
  assert.deepEqual([0, 1, 60, 754, 3723, 7200].map(air.spoken), [
    '0 seconds',
    '1 second',
    '1 minute',
    '12 minutes',
    '1 hour 2 minutes',
    '2 hours',
  ]);
  assert.deepEqual([0, 940, 4_200_000, 41_600_000, 999_700, 1_300_000_000].map(air.size), [
    '0 B',
    '940 B',
    '4.2 MB',
    '42 MB',
    '1.0 MB',
    '1.3 GB',
  ]);
  assert.deepEqual([480_000, 1_500_000].map(air.rate), ['480 kbit/s', '1.5 Mbit/s']);
});

test('only a live output grows between two documents', () => {
  assert.equal(air.elapsed({ state: 'live', duration: 10 }, 1000, 3500), 12.5);
  assert.equal(air.elapsed({ state: 'reconnecting', duration: 10 }, 1000, 3500), 10);
  assert.equal(air.elapsed({ state: 'live' }, 5000, 1000), 0, 'the duration never decreases');
});

test('starts and ends are announced, and running outputs after a join', () => {
  const recording = { id: 'o1', state: 'live', duration: 5 };
  const broadcast = { id: 'o2', state: 'reconnecting', duration: 1 };
  const over = { id: 'o3', state: 'finished', duration: 99 };
  const both = air.badges({
    recordings: [over, recording],
    broadcasts: [broadcast, { ...broadcast, id: 'o4', duration: 60 }],
  });
  assert.deepEqual(
    both.map((badge) => [badge.label, badge.output.id]),
    [
      ['REC', 'o1'],
      ['LIVE', 'o4'],
    ],
    'one badge per kind, of the longest output',
  );
  assert.deepEqual(air.badges({}), []);
  assert.deepEqual(air.changes(null, both), ['This call is being recorded', 'This call is being broadcast']);
  assert.deepEqual(air.changes(both, both.slice(1)), ['The recording has ended']);
  assert.deepEqual(air.changes(both, both), [], 'changed numbers are not announced');
  assert.deepEqual(air.changes(null, []), []);
});

test('an output is described by short facts', () => {
  const live = { kind: 'rtmp', state: 'live', duration: 61, bitrate: 1_640_000, reconnects: 1, dropped: 3 };
  assert.deepEqual(air.facts(live, 'broadcast', 0, 1000), ['1:02', '1.6 Mbit/s', '1 reconnect', '3 frames dropped']);
  assert.deepEqual(air.facts({ state: 'failed', bytes: 0 }, 'recording', 0, 0), ['Failed']);
  assert.deepEqual(air.facts({ state: 'live', duration: 1, bytes: 2_000_000 }, 'recording', 0, 0), ['0:01', '2.0 MB']);
  const input = { state: 'live', size: { width: 640, height: 360 }, bitrate: 500_000, reconnects: 0 };
  assert.deepEqual(air.facts(input, 'input', 0, 9000), ['640×360', '500 kbit/s']);
  assert.equal(air.title({ format: 'ogg', kind: 'view' }, 'recording'), 'Recording, Audio only');
  assert.equal(air.title({ kind: 'tracks', format: 'mkv' }, 'recording'), 'Recording, one file per person');
  assert.equal(air.title({ kind: 'srt' }, 'broadcast'), 'Live, SRT');
});

test('a file is described by short facts', () => {
  const file = {
    file: 'r-1-o1.mp4',
    url: '/v1/recordings/r-1-o1.mp4',
    state: 'mended',
    duration: 61,
    bytes: 4_200_000,
  };
  assert.deepEqual(air.fileFacts(file), ['1:01', '4.2 MB', 'MP4', 'Repaired']);
  assert.deepEqual(
    air.fileFacts({ ...file, state: 'finished', upload: { state: 'uploading', sent_bytes: 2_100_000 } }),
    ['1:01', '4.2 MB', 'MP4', 'Uploading 50 %'],
  );
  assert.deepEqual(air.fileFacts({ ...file, state: 'recording', upload: { state: 'waiting', failures: 2 } }), [
    '4.2 MB',
    'MP4',
    'Recording now',
    'Upload will be retried',
  ]);
  assert.ok(air.playable(file));
  assert.ok(
    !air.playable({ ...file, url: undefined }) &&
      !air.playable({ ...file, state: 'broken' }) &&
      !air.playable({ ...file, file: 'x.mkv' }),
  );
});

test('addresses are checked before they are sent', () => {
  for (const url of ['rtmp://a/b', 'RTMPS://a/b', 'srt://a:1?mode=caller', 'whip+https://a/b', 'rtp://1.2.3.4:5'])
    assert.equal(air.wrongTarget(url), null, url);
  for (const url of ['', 'http://a', 'rtmp://', 'a/b', 'javascript:alert(1)']) assert.ok(air.wrongTarget(url), url);
  for (const url of ['file:intro.mp4', 'https://a/b.m3u8', 'rtsp://a', 'whep+https://a'])
    assert.equal(air.wrongSource(url), null, url);
  for (const url of ['', 'file:', 'file:/etc/passwd', 'ftp://a']) assert.ok(air.wrongSource(url), url);
});

test('events update the outputs of the room', () => {
  const room = { participants: [], views: [], recordings: [{ id: 'o1', state: 'live' }] };
  const ended = wire.applyEvent(room, {
    type: 'recording',
    version: 4,
    recording: { id: 'o1', state: 'finished', files: ['a'] },
  });
  assert.deepEqual([ended.recordings, ended.version], [[{ id: 'o1', state: 'finished', files: ['a'] }], 4]);
  assert.deepEqual(wire.applyEvent(ended, { type: 'broadcast', broadcast: { id: 'o2', state: 'live' } }).broadcasts, [
    { id: 'o2', state: 'live' },
  ]);
  assert.equal(room.recordings[0].state, 'live', 'documents are immutable');
});

test('the best variant, its audio and its segments are read from HLS playlists', () => {
  const master =
    '#EXTM3U\n' +
    '#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="a",URI="audio/index.m3u8"\n' +
    '#EXT-X-STREAM-INF:BANDWIDTH=500000,CODECS="avc1.42e01f,mp4a.40.2"\n' +
    'low/index.m3u8\n' +
    '#EXT-X-STREAM-INF:BANDWIDTH=1600000,CODECS="avc1.42e020,mp4a.40.2",RESOLUTION=1280x720\nhigh/index.m3u8\n';
  assert.deepEqual(
    hls.renditions(master),
    [{ uri: 'high/index.m3u8', codecs: 'avc1.42e020,mp4a.40.2' }],
    'audio in the same file',
  );
  const apart = [
    { uri: 'high/index.m3u8', codecs: 'avc1.42e020' },
    { uri: 'audio/index.m3u8', codecs: 'mp4a.40.2' },
  ];
  assert.deepEqual(
    hls.renditions(master.replace('RESOLUTION', 'AUDIO="a",RESOLUTION')),
    apart,
    'audio in a separate rendition',
  );
  const media =
    '#EXTM3U\n' +
    '#EXT-X-MEDIA-SEQUENCE:7\n' +
    '#EXT-X-MAP:URI="init.mp4"\n' +
    '#EXT-X-PART:DURATION=0.5,URI="7.0.m4s"\n' +
    '#EXTINF:2.000,\n' +
    '#EXT-X-PROGRAM-DATE-TIME:2026-11-25T10:00:00Z\n' +
    '7.m4s\n' +
    '#EXTINF:1.5,\r\n8.m4s\n#EXT-X-PART:DURATION=0.5,URI="9.0.m4s"\n#EXT-X-PRELOAD-HINT:TYPE=PART,URI="9.1.m4s"\n';
  assert.deepEqual(hls.segments(media), {
    head: 'init.mp4',
    over: false,
    list: [
      { uri: '7.m4s', seconds: 2, number: 7 },
      { uri: '8.m4s', seconds: 1.5, number: 8 },
    ],
  });
  assert.deepEqual(hls.renditions(media), []);
  assert.equal(hls.segments(`${media}#EXT-X-ENDLIST\n`).over, true);
});

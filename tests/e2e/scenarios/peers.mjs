// Peers of other makes in one room with Chromium.

import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline/promises';
import { fileURLToPath } from 'node:url';
import { python, program } from '../python.mjs';

/** Starts `tests/peers/peer.py`; resolves when it has joined. */
const startPeer = (mode, options, person, more = []) =>
  start(python(), [program('peer.py'), mode, ...more], options, person);

/** Starts a peer of `tests/e2e/peers`; resolves when it has joined. */
const startNodePeer = (file, options, person) =>
  start(process.execPath, [fileURLToPath(new URL(`../peers/${file}`, import.meta.url))], options, person);

async function start(command, arguments_, options, { name, colour, tone }) {
  const child = spawn(
    command,
    [
      ...arguments_,
      '--url',
      options.url,
      '--room',
      options.room,
      '--name',
      name,
      '--colour',
      colour.join(),
      '--tone',
      String(tone),
    ],
    { stdio: ['pipe', 'pipe', 'inherit'] },
  );
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const line = async () => {
    const { value, done } = await lines.next();
    if (done) throw new Error(`${name} ended`);
    return JSON.parse(value);
  };
  const ended = new Promise((resolve) => {
    child.on('exit', resolve);
  });
  process.on('exit', () => child.kill());
  const { joined } = await line();
  return {
    id: joined,
    measure: (question) => {
      child.stdin.write(`${JSON.stringify(question)}\n`);
      return line();
    },
    leave: () => {
      child.stdin.end();
      return ended;
    },
  };
}

/** Joins a page as the person with colour and tone `k`; resolves with the participant's id. */
const join = (page, { room }, k, name) =>
  page.evaluate(
    async (room_, k_, name_) => {
      globalThis.me = await new people.Person({ k: k_, room: room_, name: name_ }).join();
      return globalThis.me.id;
    },
    room,
    k,
    name,
  );

/** Whether the room shows so many tiles within 20 s; then time for keyframes and tones to arrive. */
async function settled(page, { room }, tiles) {
  const ready = await page.evaluate(
    (room_, count) =>
      people.until(async () => people.program(await people.roomDocument(room_)).tiles.length === count, 20_000, 200),
    room,
    tiles,
  );
  await new Promise((resolve) => {
    setTimeout(resolve, 4000);
  });
  return ready;
}

/** What the person `k` in a page receives of the numbers in `sending`. */
const ofPage = (page, { room }, k, sending) =>
  page.evaluate(
    async (room_, k_, hears) => {
      const document_ = await people.roomDocument(room_);
      const tiles = (await people.look(globalThis.me, people.program(document_))).map((t) => ({
        ...t,
        moves: t.bars >= 4,
      }));
      const sound = await people.listen(globalThis.me, { expected: hears.filter((t) => t !== k_), strangers: [k_] });
      return {
        tracks: globalThis.me.tracks,
        tiles,
        sound,
        stats: await globalThis.me.stats(),
        states: globalThis.me.states,
      };
    },
    room,
    k,
    sending,
  );

/**
 * What a peer without a browser decodes of the numbers in `sending`. `page` knows the colours; `silent` has numbers of
 * more tones that must not be audible.
 */
async function ofPeer(peer, page, tones, k, sending, silent = []) {
  const { levels, tiles, ...rest } = await peer.measure({ tones });
  const seen = await page.evaluate(
    (list) =>
      list.map((t) => {
        const { k: nearest, away } = people.nearest(t.colour);
        return { ...t, seen: nearest, away };
      }),
    tiles,
  );
  const heard = sending.filter((t) => t !== k).map((t) => ({ k: t, db: rounded(levels[t].heard) }));
  const unheard = [k, ...silent.filter((t) => t !== k)].map((t) => ({ k: t, db: rounded(levels[t].leak) }));
  return {
    ...rest,
    tiles: seen,
    sound: {
      heard,
      unheard,
      weakest_db: Math.min(...heard.map((t) => t.db)),
      loudest_stranger_db: Math.max(...unheard.map((t) => t.db)),
    },
  };
}

/** Colours and tones of people.js, and the person `k` of them. */
async function cast(page) {
  const { COLOURS, TONES } = await page.evaluate(() => ({ COLOURS: people.COLOURS, TONES: people.TONES }));
  return { tones: TONES, person: (k, name) => ({ name, colour: COLOURS[k], tone: TONES[k] }) };
}

/** Chromium, Firefox, aiortc (whose offer has no SSRCs), ffmpeg's WHIP muxer, and an aiortc WHEP viewer in one room. */
export async function together(stage) {
  const { options } = stage;
  const chromium = await stage.peoplePage(await stage.chromium());
  const firefox = await stage.peoplePage(await stage.firefox());
  const { tones, person } = await cast(chromium);
  const ids = {
    chromium: await join(chromium, options, 0, 'chromium'),
    firefox: await join(firefox, options, 1, 'firefox'),
  };
  const aiortc = await startPeer('call', options, person(2, 'aiortc'), ['--unnamed']);
  ids.aiortc = aiortc.id;
  const ffmpeg = await startPeer('publish', options, person(3, 'ffmpeg'));
  const viewer = await startPeer('watch', options, person(4, 'viewer'));
  const ready = await settled(chromium, options, 4);

  const room = await chromium.evaluate((o) => people.roomDocument(o.room), options);
  ids.ffmpeg = room.participants.find((p) => p.name === 'ffmpeg')?.id;
  const sending = [0, 1, 2, 3];
  const heard = tones.slice(0, 5);
  const [ofChromium, ofFirefox, ofAiortc, ofViewer] = await Promise.all([
    ofPage(chromium, options, 0, sending),
    ofPage(firefox, options, 1, sending),
    ofPeer(aiortc, chromium, heard, 2, sending, [4]),
    ofPeer(viewer, chromium, heard, 4, sending),
  ]);
  const measured = { chromium: ofChromium, firefox: ofFirefox, aiortc: ofAiortc, viewer: ofViewer };
  const roles = Object.fromEntries(room.participants.map((p) => [p.name, p.role]));
  const still_sending = (await ffmpeg.measure({})).sending;
  const exits = [await viewer.leave(), await aiortc.leave(), await ffmpeg.leave()];
  for (const page of [chromium, firefox]) await page.evaluate(() => globalThis.me.leave());
  return { ready, ids, roles, peers: measured, still_sending, exits };
}

/** Chromium, libwebrtc without a browser (@roamhq/wrtc) and werift, which has no codecs, in one room. */
export async function node_peers(stage) {
  const { options } = stage;
  const chromium = await stage.peoplePage(await stage.chromium());
  const { tones, person } = await cast(chromium);
  const ids = { chromium: await join(chromium, options, 0, 'chromium') };
  const wrtc = await startNodePeer('wrtc.mjs', options, person(1, 'wrtc'));
  const werift = await startNodePeer('werift.mjs', options, person(2, 'werift'));
  Object.assign(ids, { wrtc: wrtc.id, werift: werift.id });
  const ready = await settled(chromium, options, 3);
  const sending = [0, 1, 2];
  const before = await werift.measure({});
  // One after the other: a peer sends nothing while it computes spectra.
  const ofChromium = await ofPage(chromium, options, 0, sending);
  const ofWrtc = await ofPeer(wrtc, chromium, tones.slice(0, 4), 1, sending, [3]);
  const after = await werift.measure({});
  const room = await chromium.evaluate((o) => people.roomDocument(o.room), options);
  const exits = [await wrtc.leave(), await werift.leave()];
  const left = await chromium.evaluate(
    (o) => people.until(async () => (await people.roomDocument(o.room)).participants.length === 1, 5000, 100),
    options,
  );
  await chromium.evaluate(() => globalThis.me.leave());
  return {
    ready,
    ids,
    canvas: room.canvas,
    peers: { chromium: ofChromium, wrtc: ofWrtc },
    werift: { before, after },
    exits,
    left,
  };
}

function rounded(x) {
  return Number(x.toFixed(1));
}

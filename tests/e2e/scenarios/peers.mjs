// Third-party peers in one room with Chromium.

import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline/promises';
import { python, program } from '../python.mjs';

/** Starts `tests/peers/peer.py`; resolves when it has joined. */
async function startPeer(mode, options, { name, colour, tone }, more = []) {
  const child = spawn(
    python(),
    [
      program('peer.py'),
      mode,
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
      ...more,
    ],
    { stdio: ['pipe', 'pipe', 'inherit'] },
  );
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const line = async () => {
    const { value, done } = await lines.next();
    if (done) throw new Error(`${name} (${mode}) ended`);
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

/** Chromium, Firefox, aiortc (whose offer has no SSRCs), ffmpeg's WHIP muxer, and an aiortc WHEP viewer in one room. */
export async function together(stage) {
  const { options } = stage;
  const chromium = await stage.peoplePage(await stage.chromium());
  const firefox = await stage.peoplePage(await stage.firefox());
  const { COLOURS, TONES } = await chromium.evaluate(() => ({ COLOURS: people.COLOURS, TONES: people.TONES }));
  const person = (k, name) => ({ name, colour: COLOURS[k], tone: TONES[k] });
  const join = (page, k, name) =>
    page.evaluate(
      async (o, k_, name_) => {
        globalThis.me = await new people.Person({ k: k_, room: o.room, name: name_ }).join();
        return globalThis.me.id;
      },
      options,
      k,
      name,
    );

  const ids = { chromium: await join(chromium, 0, 'chromium'), firefox: await join(firefox, 1, 'firefox') };
  const aiortc = await startPeer('call', options, person(2, 'aiortc'), ['--unnamed']);
  ids.aiortc = aiortc.id;
  const ffmpeg = await startPeer('publish', options, person(3, 'ffmpeg'));
  const viewer = await startPeer('watch', options, person(4, 'viewer'));
  const ready = await chromium.evaluate(
    (o) =>
      people.until(
        async () => {
          const room = await people.roomDocument(o.room);
          return people.program(room).tiles.length === 4;
        },
        20_000,
        200,
      ),
    options,
  );
  await new Promise((resolve) => {
    setTimeout(resolve, 4000);
  });

  const room = await chromium.evaluate((o) => people.roomDocument(o.room), options);
  ids.ffmpeg = room.participants.find((p) => p.name === 'ffmpeg')?.id;
  const sending = [0, 1, 2, 3];
  const all = [0, 1, 2, 3, 4];
  const browser = (page, k) =>
    page.evaluate(
      async (o, k_, hears) => {
        const room_ = await people.roomDocument(o.room);
        const tiles = (await people.look(globalThis.me, people.program(room_))).map((t) => ({
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
      options,
      k,
      sending,
    );
  const python = async (peer, k) => {
    const { levels, tiles, ...rest } = await peer.measure({ tones: TONES.slice(0, all.length) });
    const seen = await chromium.evaluate(
      (list) =>
        list.map((t) => {
          const { k: nearest, away } = people.nearest(t.colour);
          return { ...t, seen: nearest, away };
        }),
      tiles,
    );
    const heard = sending.filter((t) => t !== k).map((t) => ({ k: t, db: rounded(levels[t].heard) }));
    const unheard = all
      .filter((t) => t === k || !sending.includes(t))
      .map((t) => ({ k: t, db: rounded(levels[t].leak) }));
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
  };
  const [ofChromium, ofFirefox, ofAiortc, ofViewer] = await Promise.all([
    browser(chromium, 0),
    browser(firefox, 1),
    python(aiortc, 2),
    python(viewer, 4),
  ]);
  const measured = { chromium: ofChromium, firefox: ofFirefox, aiortc: ofAiortc, viewer: ofViewer };
  const roles = Object.fromEntries(room.participants.map((p) => [p.name, p.role]));
  const still_sending = (await ffmpeg.measure({})).sending;
  const exits = [await viewer.leave(), await aiortc.leave(), await ffmpeg.leave()];
  for (const page of [chromium, firefox]) await page.evaluate(() => globalThis.me.leave());
  return { ready, ids, roles, peers: measured, still_sending, exits };
}

function rounded(x) {
  return Number(x.toFixed(1));
}

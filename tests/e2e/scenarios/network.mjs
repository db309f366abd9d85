// Calls over bad networks: the page reaches the server through the relay of the tests.

import { execFile } from 'node:child_process';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { promisify } from 'node:util';
import { program, python } from '../python.mjs';

const run = promisify(execFile);
// Harvard sentences, IEEE 1969.
const SPEECH = 'The birch canoe slid on the smooth planks. Glue the sheet to the dark blue background.';

/**
 * A participant with changing bandwidth in a call with bots; the request `link KBPS` sets it, `counts` reads the
 * relay.
 */
export async function thin_link({ page: open, options, ask }) {
  const page = await open();
  const ready = await page.evaluate(async (o) => {
    const { Person, roomDocument, program, until } = people;
    const log = (globalThis.tiers = []);
    const me = (globalThis.me = await new Person({ k: 0, room: o.room }).join());
    const events = people.events(o.room);
    const note = (p) => {
      const { tier, limit } = p.receives;
      if (p.id === me.id && log.at(-1)?.tier !== tier) log.push({ at: performance.now(), tier, limit });
    };
    const read = () => {
      for (const e of events.log.splice(0)) {
        if (e.type === 'room') e.participants.forEach(note);
        else if (e.participant?.receives) note(e.participant);
      }
    };
    setInterval(read, 20);
    const all = o.people;
    const in_time = await until(
      async () => program(await roomDocument(o.room)).tiles.length === all && me.frames.length > 30,
      30_000,
      200,
    );
    await me.watchGaps();
    await people.sleep(5000);
    return in_time;
  }, options);

  const phases = [];
  for (const kbps of options.rates) {
    await ask(`link ${kbps}`);
    const phase = await page.evaluate(
      async (ms, settle) => {
        const { me } = globalThis;
        const from = performance.now();
        const [at_first, start] = [globalThis.tiers.at(-1)?.tier, await me.stats()];
        await people.sleep(settle);
        const [settled, before] = [performance.now(), await me.stats()];
        await people.sleep(ms - settle);
        const [to, after] = [performance.now(), await me.stats()];
        const seconds = (to - settled) / 1000;
        const gaps = me.gaps.filter((g) => g.at >= from && g.at < to);
        const rate = (kind) => people.round((8 * (after[kind].bytes - before[kind].bytes)) / seconds / 1000);
        return {
          at_first,
          tiers: globalThis.tiers
            .filter((t) => t.at >= from)
            .map(({ at, ...t }) => ({ after_ms: people.round(at - from), ...t })),
          last: globalThis.tiers.at(-1)?.tier,
          concealed_ms: people.round((after.audio.concealed - start.audio.concealed) / 48),
          gap_ms: Math.max(0, ...gaps.map((g) => g.ms)),
          gaps: gaps.filter((g) => g.ms > 20).map((g) => ({ after_ms: people.round(g.at - from), ms: g.ms })),
          settled: {
            seconds: people.round(seconds),
            fps: people.round((after.video.decoded - before.video.decoded) / seconds, 2),
            ...me.freezes(settled, to),
            width: after.video.width,
            kbps: { audio: rate('audio'), video: rate('video') },
            concealed: people.round(
              (after.audio.concealed - before.audio.concealed) / (after.audio.samples - before.audio.samples),
              4,
            ),
            sound_waits_ms: people.round(
              (after.audio.waited_ms - before.audio.waited_ms) / (after.audio.emitted - before.audio.emitted),
            ),
            keyframes: after.video.keyframes - before.video.keyframes,
          },
        };
      },
      options.seconds * 1000,
      8000,
    );
    phases.push({ kbps, ...phase, down: JSON.parse(await ask('counts')) });
  }
  await page.evaluate(() => globalThis.me.leave());
  return { ready, phases };
}

/** A viewer with a long round-trip time and packet loss. */
export async function far_viewer({ page: open, options }) {
  const page = await open();
  return page.evaluate(async (o) => {
    const { Person, until } = people;
    const me = await new Person({ room: o.room, send: { video: false, audio: false }, path: `/whep/${o.room}` }).join();
    const ready = await until(() => me.frames.length > 30, 30_000, 200);
    const first = await me.stats();
    const protected_ = await until(
      async () => (await me.stats()).video.repairs_unasked > first.video.repairs_unasked + 5,
      20_000,
      500,
    );
    const [from, before] = [performance.now(), await me.stats()];
    await people.sleep(o.seconds * 1000);
    const [to, after] = [performance.now(), await me.stats()];
    const since = (what) => after.video[what] - before.video[what];
    await me.leave();
    return {
      ready,
      protected: protected_,
      ...me.freezes(from, to),
      packets: since('packets'),
      decoded: since('decoded'),
      repairs_unasked: since('repairs_unasked'),
      nacks: since('nacks'),
      keyframes: since('keyframes'),
    };
  }, options);
}

/** A participant with commingle.js whose path breaks: the server's event, and the time until video returns. */
export async function way_breaks({ page: open, options, ask }) {
  const page = await open();
  await page.evaluate(async ({ room }) => {
    const Straight = globalThis.WebSocket;
    globalThis.asked = [];
    globalThis.WebSocket = class extends Straight {
      constructor(url, protocols) {
        super(url, protocols);
        this.addEventListener(
          'message',
          ({ data }) => JSON.parse(data).type === 'ice_restart' && asked.push(performance.now()),
        );
      }
    };
    const straight = globalThis.fetch;
    globalThis.restarts = [];
    globalThis.fetch = (resource, init = {}) => {
      if (init.method === 'PATCH' && new Headers(init.headers).get('if-match') === '*')
        restarts.push(performance.now());
      return straight(resource, init);
    };
    const { join } = await import('/commingle.js');
    const camera = people.camera(0, { width: 320, height: 180, fps: 15 });
    globalThis.session = await join({ room, name: 'Ann', stream: new MediaStream([camera.track]) });
    globalThis.video = Object.assign(document.createElement('video'), {
      muted: true,
      autoplay: true,
      srcObject: session.stream,
    });
    document.body.append(video);
  }, options);
  const frames = () => page.evaluate(() => video.getVideoPlaybackQuality().totalVideoFrames);
  const moves = async (ms) => {
    const [before, from] = [await frames(), Date.now()];
    while ((await frames()) <= before + 3 && Date.now() - from < ms)
      await new Promise((resolve) => {
        setTimeout(resolve, 50);
      });
    return (await frames()) > before + 3;
  };
  const ready = await moves(10_000);
  const id = await page.evaluate(() => session.id);
  await ask('loss 100');
  const from = await page.evaluate(() => performance.now());
  const told = await page.evaluate(() => people.until(() => asked.length > 0 && restarts.length > 0, 10_000, 20));
  const [asked_ms, restarted_ms] = await page.evaluate((at) => [asked[0] - at, restarts[0] - at].map(Math.round), from);
  await ask('loss 0');
  const since = Date.now();
  const again = await moves(8_000);
  const back_ms = Date.now() - since;
  const stays = (await page.evaluate(() => session.id)) === id;
  await page.evaluate(() => session.leave());
  return { ready, told, asked_ms, restarted_ms, again, back_ms, stays };
}

/** Samples at 48 kHz, as a file of 32-bit floats. */
async function keepSound(options, name, base64) {
  const file = path.join(options.out, `${name}.f32`);
  await writeFile(file, Buffer.from(base64, 'base64'));
  return file;
}

/**
 * Two participants speak and move, one of them behind a network with loss in both directions; the request `loss
 * PERCENT` sets it. Measures for each loss the freezes of the video that the lossy one receives, those of its tile at
 * the other one, and the quality of the received speech of both compared to no loss.
 */
export async function loss(stage) {
  const { options, ask } = stage;
  await mkdir(options.out, { recursive: true });
  const wav = path.join(options.out, 'speech.wav');
  await run('espeak-ng', ['-w', wav, '-s', '150', '-v', 'en-us', SPEECH]);
  const speech = (await readFile(wav)).toString('base64');
  const [lossy, clean] = await Promise.all(
    [options.relay, ''].map(async (relay) => stage.peoplePage(await stage.chromium(), relay)),
  );
  const join = (page, k) =>
    page.evaluate(
      async (o, k_, speech_) => {
        const picture = { width: 320, height: 180, fps: 30, busy: true };
        globalThis.me = await new people.Person({ k: k_, room: o.room, picture, speech: speech_ }).join();
        return globalThis.me.id;
      },
      options,
      k,
      speech,
    );
  const id = await join(lossy, 0);
  await join(clean, 2);
  const ready = (
    await Promise.all(
      [lossy, clean].map((page) =>
        page.evaluate(
          async (o) =>
            people.until(
              async () =>
                people.program(await people.roomDocument(o.room)).tiles.length === 2 &&
                globalThis.me.frames.length > 30,
              20_000,
              200,
            ),
          options,
        ),
      ),
    )
  ).every(Boolean);
  await clean.evaluate(
    async (o, id_) => {
      const view = people.program(await people.roomDocument(o.room));
      globalThis.me.watchTile(
        view.tiles.find((t) => t.participant === id_),
        view.canvas,
      );
      await people.sleep(8000);
    },
    options,
    id,
  );

  const measure = (page, ms) =>
    page.evaluate(async (ms_) => {
      const { me } = globalThis;
      const [from, before] = [performance.now(), await me.stats()];
      const sound = await me.record(ms_);
      const [to, after] = [performance.now(), await me.stats()];
      const bytes = new Uint8Array(sound.buffer);
      let text = '';
      for (let i = 0; i < bytes.length; i += 32768) text += String.fromCharCode(...bytes.subarray(i, i + 32768));
      const since = (kind, what) => people.round(after[kind][what] - before[kind][what]);
      return {
        sound: btoa(text),
        seen: {
          ...me.freezes(from, to),
          freezes: since('video', 'freezes'),
          frozen_ms: since('video', 'frozen_ms'),
          keyframes: since('video', 'keyframes'),
          plis: since('video', 'plis'),
          nacks: since('video', 'nacks'),
          kbps: people.round((8 * since('video', 'bytes')) / (to - from)),
          width: after.video.width,
          ...(me.moved && { tile_still_ms: me.stillness(from, to) }),
        },
        concealed: people.round(since('audio', 'concealed') / since('audio', 'samples'), 4),
      };
    }, ms);

  const references = {};
  const rounds = [];
  for (const percent of options.losses) {
    await ask(`loss ${percent}`);
    await new Promise((resolve) => {
      setTimeout(resolve, 3000);
    });
    const [far, near] = await Promise.all([
      measure(lossy, options.seconds * 1000),
      measure(clean, options.seconds * 1000),
    ]);
    const round = { loss_percent: percent, lossy: far.seen, clean: near.seen };
    for (const [who, { sound, concealed }] of Object.entries({ lossy: far, clean: near })) {
      const heard = await keepSound(options, `heard-${who}-${percent}`, sound);
      references[who] ??= heard;
      const { stdout } = await run(python(), [program('score.py'), wav, references[who], heard]);
      round[`${who}_hears`] = { concealed, ...JSON.parse(stdout) };
    }
    round.relay = JSON.parse(await ask('counts'));
    rounds.push(round);
  }
  for (const page of [lossy, clean]) await page.evaluate(() => globalThis.me.leave());
  return { ready, rounds };
}

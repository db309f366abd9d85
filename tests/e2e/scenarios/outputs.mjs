// Calls that are recorded and broadcast; the Rust test starts and stops the outputs on request.

import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';

const HLS = createRequire(import.meta.url).resolve('hls.js/dist/hls.min.js');

/** Two participants, one with flashes and beeps, recorded and broadcast by all outputs at once. */
export async function clap({ page: open, options, ask }) {
  const page = await open();
  const ready = await page.evaluate(async ({ room }) => {
    const { Person, until } = people;
    const picture = { width: 640, height: 360, fps: 30 };
    globalThis.all = [await new Person({ claps: true, name: 'Clapper', room, picture }).join()];
    all.push(await new Person({ k: 1, room, picture }).join());
    return until(() => all.every((p) => p.frames.length > 10), 15_000);
  }, options);
  await ask('begin');
  await page.evaluate((s) => people.sleep(1000 * s), options.seconds);
  await ask('end');
  const freezes = await page.evaluate(async (s) => {
    const now = performance.now();
    const each = all.map((p) => p.freezes(now - 1000 * s, now));
    for (const p of all) await p.leave();
    return each;
  }, options.seconds);
  return { ready, freezes };
}

/** A call of two is broadcast by HLS and played by hls.js in another browser; a request kills the output process. */
export async function hls({ page: open, chromium, options, ask }) {
  const call = await open();
  await call.evaluate(async ({ room }) => {
    const { Person, until } = people;
    globalThis.all = [];
    for (const k of [1, 2])
      all.push(await new Person({ k, room, picture: { width: 640, height: 360, fps: 30 } }).join());
    await until(() => all.every((p) => p.frames.length > 10), 15_000);
  }, options);
  await ask('begin');
  const page = await (await chromium()).newPage();
  await page.goto(`${options.url}/healthz`);
  await page.evaluate(await readFile(HLS, 'utf8'));
  await page.evaluate(({ room }) => {
    const video = Object.assign(document.createElement('video'), { muted: true });
    document.body.append(video);
    const player = new Hls({ lowLatencyMode: true });
    Object.assign(globalThis, { video, player, faults: [], shownAt: [], began: performance.now() });
    player.on(Hls.Events.ERROR, (_, { type, details, fatal }) => faults.push({ type, details, fatal }));
    player.on(Hls.Events.MANIFEST_PARSED, () => video.play());
    const seen = (now) => {
      shownAt.push(now);
      video.requestVideoFrameCallback(seen);
    };
    video.requestVideoFrameCallback(seen);
    player.loadSource(`/hls/${room}/index.m3u8`);
    player.attachMedia(video);
  }, options);
  const watch = (ms) =>
    page.evaluate(async (time) => {
      const sleep = (t) =>
        new Promise((resolve) => {
          setTimeout(resolve, t);
        });
      while (performance.now() - began < 30_000 && !shownAt.length) await sleep(50);
      const from = performance.now();
      await sleep(time);
      const shown = [from, ...shownAt.filter((now) => now > from), performance.now()];
      return {
        first_ms: (shownAt[0] ?? NaN) - began,
        frames: shown.length - 2,
        longest_gap_ms: Math.max(...shown.slice(1).map((now, i) => now - shown[i])),
        behind_s: player.playingDate ? (Date.now() - player.playingDate.getTime()) / 1000 : null,
        levels: player.levels.map(({ height, codecSet }) => ({ height, codecSet })),
        size: [video.videoWidth, video.videoHeight],
        faults: faults.splice(0),
        sound: video.webkitAudioDecodedByteCount,
      };
    }, ms);
  await watch(3000);
  const steady = await watch(1000 * options.seconds);
  await ask('kill');
  await watch(8000);
  const again = await watch(4000);
  await ask('end');
  const ended = await page.evaluate(async () => {
    const late = performance.now() + 15_000;
    while (!video.ended && performance.now() < late)
      await new Promise((resolve) => {
        setTimeout(resolve, 100);
      });
    const buffered = Array.from({ length: video.buffered.length }, (_, i) => [
      video.buffered.start(i),
      video.buffered.end(i),
    ]);
    return {
      ended: video.ended,
      at: video.currentTime,
      duration: video.duration,
      buffered,
      live: player.latestLevelDetails?.live,
      faults,
    };
  });
  await call.evaluate(async () => {
    for (const p of all) await p.leave();
  });
  return { steady, again, ended };
}

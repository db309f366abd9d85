// Calls that are recorded and broadcast: the other side begins and ends outputs when it is asked to.

/** Three people, one of whom claps: everything is taken of it at once. */
export async function clap({ page: open, options, ask }) {
  const page = await open();
  const ready = await page.evaluate(async ({ room }) => {
    const { Person, until } = people;
    const picture = { width: 640, height: 360, fps: 30 };
    globalThis.all = [await new Person({ claps: true, name: 'Clapper', room, picture }).join()];
    for (const k of [1, 2]) all.push(await new Person({ k, room, picture }).join());
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

/** Plays a room's HLS as people's pages do, with hls.js, until `seconds` of it have been seen. */
export async function hls({ chromium, options, hlsScript }) {
  const page = await (await chromium()).newPage();
  await page.goto(`${options.url}/healthz`);
  await page.evaluate(hlsScript);
  return page.evaluate(async ({ room, seconds }) => {
    const video = Object.assign(document.createElement('video'), { muted: true });
    document.body.append(video);
    const player = new Hls({ lowLatencyMode: true });
    const [faults, frames, began] = [[], [], performance.now()];
    player.on(Hls.Events.ERROR, (_, { type, details, fatal }) => faults.push({ type, details, fatal }));
    player.on(Hls.Events.MANIFEST_PARSED, () => video.play());
    const seen = (now, { mediaTime }) => { frames.push({ now, mediaTime }); video.requestVideoFrameCallback(seen); };
    video.requestVideoFrameCallback(seen);
    player.loadSource(`/hls/${room}/index.m3u8`);
    player.attachMedia(video);
    const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
    while (performance.now() - began < 30_000 && !frames.length) await sleep(50);
    const first = performance.now() - began;
    await sleep(1000 * seconds);
    const shown = frames.filter(({ now }) => now > began + first + 2000);
    const gaps = shown.slice(1).map(({ now }, i) => now - shown[i].now);
    const behind = player.playingDate ? (Date.now() - player.playingDate.getTime()) / 1000 : null;
    return {
      first_ms: first, frames: shown.length, longest_gap_ms: Math.max(0, ...gaps), behind_s: behind, latency_s: player.latency,
      levels: player.levels.map(({ height, codecSet, bitrate }) => ({ height, codecSet, bitrate })), level: player.currentLevel,
      size: [video.videoWidth, video.videoHeight], faults, sound: video.webkitAudioDecodedByteCount,
    };
  }, options);
}

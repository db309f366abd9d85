// The page that plays a broadcast, and other HLS players, while the server restarts in the middle.

import { until } from '../page.mjs';
import { plays, reaches, state, VIEWS } from '../player.mjs';

const sleep = (ms) =>
  new Promise((resolve) => {
    setTimeout(resolve, ms);
  });

/** A page with hls.js and the usual handling of fatal errors, as in its own documentation. */
async function usual(browser, options) {
  const page = await browser.newPage();
  // A page of the same origin without a script of its own.
  await page.goto(`${options.url}/vendor/hls.js/LICENSE.txt`);
  await page.evaluate(async (url, library) => {
    const { default: Hls } = await import(library);
    document.body.replaceChildren(Object.assign(document.createElement('video'), { muted: true }));
    const video = document.querySelector('video');
    const hls = new Hls({ enableWorker: false });
    hls.on(Hls.Events.MANIFEST_PARSED, () => void video.play());
    hls.on(Hls.Events.ERROR, (_, { fatal, type }) => {
      if (fatal && type === Hls.ErrorTypes.NETWORK_ERROR) setTimeout(() => hls.startLoad(), 500);
      else if (fatal && type === Hls.ErrorTypes.MEDIA_ERROR) hls.recoverMediaError();
    });
    hls.loadSource(url);
    hls.attachMedia(video);
  }, `/hls/${options.room}/index.m3u8`, '/vendor/hls.js/hls.min.mjs');
  return page;
}

export async function live({ chromium, options, ask, keep }) {
  const browser = await chromium();
  const page = await browser.newPage();
  const faults = [];
  page.on('pageerror', (error) => faults.push(String(error)));
  const shots = async (name) => {
    for (const scheme of ['dark', 'light']) {
      await page.emulateMediaFeatures([{ name: 'prefers-color-scheme', value: scheme }]);
      for (const [width, view] of Object.entries(VIEWS)) {
        await page.setViewport(view);
        await sleep(500);
        await keep(`live-${name}-${width}-${scheme}`, await page.screenshot());
      }
    }
  };
  await page.goto(`${options.url}/live/${options.room}`);
  const waiting = await reaches(page, 'waiting', 5_000);
  await shots('waiting');
  await ask('begin');
  const begun = await reaches(page, 'live', 30_000);
  const other = await usual(browser, options);
  // The first second may be spent on buffering.
  await until(async () => (await plays(page, 1_000)) > 0.5, 20_000);
  const before = { page: await plays(page, 4_000), other: 0 };
  await until(async () => (await plays(other, 1_000)) > 0.5, 20_000);
  before.other = await plays(other, 3_000);
  await page.bringToFront(); // a click in a background page waits for a frame that never comes
  const overflow_px = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
  await shots('live');
  await page.click('#audio');
  const plays_live = async () => (await plays(page, 1_000)) > 0.5 && (await state(page)) === 'live';
  const audio_only = await until(plays_live, 20_000);
  const audio_picture = await page.evaluate(() => document.querySelector('video').videoWidth);
  await shots('audio');
  await page.click('#audio');
  await until(plays_live, 20_000);

  await ask('stop-server');
  const unreachable = await reaches(page, 'unreachable', 40_000);
  const kept_picture = await page.evaluate(() => document.querySelector('video').videoWidth);
  await shots('unreachable');
  await ask('start-server');
  await ask('begin');
  const again = await reaches(page, 'live', 40_000);
  await until(async () => (await plays(page, 1_000)) > 0.5, 20_000);
  const after = { page: await plays(page, 5_000), other: 0 };
  await other.bringToFront(); // Chromium pauses silent videos in the background
  await until(async () => (await plays(other, 1_000)) > 0.5, 30_000);
  after.other = await plays(other, 4_000);

  await page.bringToFront();
  await ask('end');
  const ended = await reaches(page, 'ended', 30_000);
  await shots('ended');
  return {
    waiting,
    begun,
    before,
    overflow_px,
    audio_only,
    audio_picture,
    unreachable,
    kept_picture,
    again,
    after,
    ended,
    faults,
  };
}

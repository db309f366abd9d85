// Captions of a broadcast in hls.js, in shaka-player and on the page of the server.

import { fileURLToPath } from 'node:url';
import { until } from '../page.mjs';
import { plays, reaches, VIEWS } from '../player.mjs';

const SHAKA = fileURLToPath(new URL('../node_modules/shaka-player/dist/shaka-player.compiled.js', import.meta.url));
const HLS_JS = '/vendor/hls.js/hls.min.mjs';
const TEXT = 'Das <i>war</i> 1 < 2 & --> שלום 👩‍👩‍👧';

const DRAWN = 6_000; // ms for which a caption is drawn
const DELAY = 7_000; // ms of delay of a player, at most

const sleep = (ms) =>
  new Promise((resolve) => {
    setTimeout(resolve, ms);
  });

/** A page of the server's origin with nothing but a video. */
async function playerPage(browser, options) {
  const page = await browser.newPage();
  await page.setBypassCSP(true);
  await page.goto(`${options.url}/vendor/hls.js/LICENSE.txt`);
  await page.evaluate(() => {
    const video = Object.assign(document.createElement('video'), { muted: true, autoplay: true });
    document.body.replaceChildren(video);
  });
  return page;
}

/** The captions of a page's video: those that it shows now, and the number of those that it knows. */
const cuesOf = (page) =>
  page.evaluate(() => {
    const video = document.querySelector('video');
    const tracks = [...video.textTracks].filter((track) => track.mode !== 'disabled');
    const active = tracks.flatMap((track) => [...(track.activeCues ?? [])]);
    return {
      shown: active.map((cue) => ({
        text: /** @type {VTTCue} */ (cue).text,
        lasts: cue.endTime - cue.startTime,
        begins: cue.startTime,
      })),
      known: tracks.reduce((sum, track) => sum + (track.cues?.length ?? 0), 0),
    };
  });

/** Notes the media time of the first frame with the drawn caption, which is red. */
const watch = (page) =>
  page.evaluate(() => {
    const video = document.querySelector('video');
    const context = new OffscreenCanvas(16, 16).getContext('2d', { willReadFrequently: true });
    window.drawn = null;
    const look = (_, { mediaTime }) => {
      context.drawImage(video, video.videoWidth * 0.48, video.videoHeight * 0.93, 8, 4, 0, 0, 16, 16);
      const [red, green] = context.getImageData(8, 8, 1, 1).data;
      window.isRed = red > 120 && green < 90;
      if (window.isRed) window.drawn ??= mediaTime;
      window.watching = video.requestVideoFrameCallback(look);
    };
    if (window.watching) video.cancelVideoFrameCallback(window.watching);
    look(0, { mediaTime: video.currentTime });
  });

export async function captions({ chromium, options, ask, keep }) {
  const browser = await chromium();
  await ask('begin');
  const source = `/hls/${options.room}/index.m3u8`;

  const hlsjs = await playerPage(browser, options);
  await hlsjs.evaluate(async (url, library) => {
    const { default: Hls } = await import(library);
    const video = document.querySelector('video');
    const hls = new Hls({ enableWorker: false });
    window.tracks = () => hls.subtitleTracks.map(({ name, lang }) => `${name} ${lang ?? ''}`.trim());
    // After the event hls.js chooses a track itself.
    hls.on(Hls.Events.SUBTITLE_TRACKS_UPDATED, () => setTimeout(() => (hls.subtitleTrack = 0)));
    hls.on(Hls.Events.MANIFEST_PARSED, () => void video.play());
    hls.loadSource(url);
    hls.attachMedia(video);
  }, source, HLS_JS);
  await until(async () => (await plays(hlsjs, 1_000)) > 0.5, 30_000);

  // shaka-player 5.2 fails with an exception while a rendition has no complete segment.
  const segments = async () => (await (await fetch(`${options.url}/hls/${options.room}/captions/index.m3u8`)).text())
    .match(/^#EXTINF/gm)?.length ?? 0;
  await until(async () => (await segments()) >= 4, 20_000);
  const shaka = await playerPage(browser, options);
  await shaka.addScriptTag({ path: SHAKA });
  await shaka.evaluate(async (url) => {
    const { shaka: library } = window;
    const video = document.querySelector('video');
    library.polyfill.installAll();
    const player = new library.Player();
    window.faults = [];
    player.addEventListener('error', ({ detail }) => window.faults.push(`${detail.code}: ${detail.data}`));
    await player.attach(video);
    // In its low-latency mode it reads no captions that have no parts.
    player.configure('streaming.lowLatencyMode', false);
    // Errors of shaka-player are no instances of Error.
    await player.load(url).catch(({ code, data }) => {
      throw new Error(`shaka-player cannot load the broadcast: ${code} ${JSON.stringify(data)}`);
    });
    player.selectTextTrack(player.getTextTracks()[0]);
    window.tracks = () => player.getTextTracks().map(({ label, language }) => `${label} ${language}`);
    await video.play();
  }, source);
  await until(async () => (await plays(shaka, 1_000)) > 0.5, 30_000);

  const page = await browser.newPage();
  await page.setViewport(VIEWS[1440]);
  await page.goto(`${options.url}/live/${options.room}`);
  await reaches(page, 'live', 30_000);
  const button = (test) => until(() => page.$eval('#captions', test), 10_000);
  await button((element) => !element.hidden && element.getAttribute('aria-pressed') === 'false');
  const known_when_off = (await cuesOf(page)).known;
  await page.click('#captions');

  let count = 0;
  let sent = 0;
  /** Sends a caption of its own number and waits until a page shows it. */
  const shows = async (where) => {
    const mark = `#${(count += 1)}`;
    await where.bringToFront(); // Chromium pauses silent videos in the background
    await until(async () => (await plays(where, 1_000)) > 0.5, 20_000);
    // The caption before is drawn for six seconds, and comes with the delay of the player.
    await sleep(sent + DRAWN + DELAY - Date.now());
    await watch(where);
    await until(() => where.evaluate(() => !window.isRed), DRAWN);
    await watch(where);
    sent = Date.now();
    await ask(`say ${TEXT} ${mark}`);
    /** @type {any} */
    let found;
    await until(async () => {
      found = (await cuesOf(where)).shown.find((cue) => cue.text.includes(mark));
      return Boolean(found);
    }, 20_000);
    if (!found) return null;
    await until(() => where.evaluate(() => window.drawn !== null), 5_000);
    const drawn = await where.evaluate(() => window.drawn);
    return { ...found, apart: drawn === null ? null : found.begins - drawn };
  };
  const of_page = await shows(page);
  await keep('live-captions-1440', await page.screenshot());
  await page.setViewport(VIEWS[390]);
  await keep('live-captions-390', await page.screenshot());
  const of_hls = await shows(hlsjs);
  const of_shaka = await shows(shaka);
  await keep('captions-shaka', await shaka.screenshot());
  const tracks = await Promise.all([hlsjs, shaka].map((where) => where.evaluate(() => window.tracks())));
  const faults = await shaka.evaluate(() => window.faults);

  await page.bringToFront();
  await page.reload();
  await button((element) => !element.hidden && element.getAttribute('aria-pressed') === 'true');
  const remembered = Boolean(await shows(page));
  return { known_when_off, of_page, of_hls, of_shaka, tracks, faults, remembered };
}

// The recording panel of the page, used by a moderator.

import { execFile } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';
import { joinByForm, until, visit } from '../page.mjs';

const text = (page, selector) => page.$eval(selector, (node) => node.textContent.trim()).catch(() => '');
const shown = (page, selector) => page.$eval(selector, (node) => node.getClientRects().length > 0).catch(() => false);

/** ffprobe's description of a downloaded file. */
async function probe(link) {
  const folder = await mkdtemp(path.join(tmpdir(), 'commingle-studio-'));
  try {
    const file = path.join(folder, 'file');
    const response = await fetch(link);
    await writeFile(file, Buffer.from(await response.arrayBuffer()));
    const read = await promisify(execFile)('ffprobe', [
      '-v',
      'error',
      '-show_entries',
      'format=duration:stream=codec_type',
      '-of',
      'json',
      file,
    ]);
    const told = JSON.parse(read.stdout);
    return {
      duration_s: Number(told.format.duration),
      kinds: told.streams.map((stream) => stream.codec_type).sort(),
      errors: read.stderr,
      disposition: response.headers.get('content-disposition'),
    };
  } finally {
    await rm(folder, { recursive: true });
  }
}

/** Opens the panel with the keyboard. */
async function openStudio(page) {
  await page.waitForSelector('#studio-toggle:not([hidden])', { timeout: 10_000 });
  await page.bringToFront(); // keyboard input goes to the page in front
  await page.keyboard.press('r');
  await page.waitForSelector('#studio', { visible: true, timeout: 2000 });
}

/**
 * Ann records while Bob is in the room and Cleo joins later. All see the badge and the announcement. Ann stops, plays
 * and downloads the file. An invalid broadcast shows an error.
 */
export async function page_records({ chromium, options, keep }) {
  const browser = await chromium();
  const faults = [];
  const ann = await visit(browser, options, 'Ann', 'wide', faults);
  const bob = await visit(browser, options, 'Bob', 'phone', faults);
  const said = [];
  await bob.exposeFunction('heard', (words) => said.push(words));
  await bob.evaluate(() =>
    new MutationObserver((changes) => {
      for (const { addedNodes } of changes) for (const node of addedNodes) window.heard(node.textContent);
    }).observe(document.querySelector('#announcer'), { childList: true }),
  );
  await joinByForm(ann, 'Ann', options.room);
  await joinByForm(bob, 'Bob', options.room);

  await openStudio(ann);
  await keep('studio-1440', await ann.screenshot());
  await ann.click('input[value="webm"]');
  await ann.focus('#start');
  await ann.keyboard.press('Enter');
  const live = /^REC\d+:\d\d$/;
  const badge = await until(async () => live.test(await text(bob, '#airs')), 10_000);
  const aloud = await until(async () => said.includes('This call is being recorded'), 2000);
  const cleo = await visit(browser, options, 'Cleo', 'phone', faults, { query: '?watch' });
  await joinByForm(cleo, 'Cleo', options.room);
  const badge_later = await until(async () => live.test(await text(cleo, '#airs')), 3000);
  const told = await ann.$eval('.air.rec', (sign) => sign.getAttribute('aria-label'));
  await cleo.click('#leave');
  // Long enough to seek in the file.
  const long = await until(async () => /0:0[6-9]/.test(await text(ann, '#airs')), 15_000);
  await keep('recording-1440', await ann.screenshot());
  await keep('recording-390', await bob.screenshot());
  const overflow_px = await bob.evaluate(() => document.documentElement.scrollWidth - innerWidth);
  await ann.click('#outputs .stop');
  const unbadged = await until(async () => !(await text(bob, '#airs')), 15_000);
  const over_aloud = await until(async () => said.includes('The recording has ended'), 2000);

  const listed = await until(
    () => shown(ann, '#files .file:not([data-state="recording"]) [aria-label^="Play"]'),
    10_000,
  );
  const file = await ann.$eval('#files .file', (node) => node.dataset.file);
  await ann.click('#files [aria-label^="Play"]');
  const at = () => ann.$eval('#player-video', (video) => video.currentTime);
  const plays = await until(async () => (await at()) > 1, 10_000);
  await ann.$eval('#player-video', (video) => {
    video.currentTime = 4;
  });
  const seeks = await until(async () => (await at()) > 4.2, 10_000);
  const length_s = await ann.$eval('#player-video', (video) => video.duration);
  await keep('playing-1440', await ann.screenshot());
  await ann.click('#player-close');
  const closed = await until(
    async () => !(await shown(ann, '#player')) && !(await ann.$eval('#mix', (mix) => mix.muted)),
    2000,
  );
  const probed = await probe(await ann.$eval('#files a[download]', (link) => link.href));

  await ann.click('input[value="broadcast"]');
  await ann.type('#target-url', 'ftp://example.org');
  await ann.click('#start');
  const advised = await text(ann, '#start-error');
  await ann.$eval('#target-url', (field) => {
    field.value = 'rtmp://127.0.0.1:9/live/secret-key';
  });
  await ann.click('#start');
  const refused =
    (await until(
      async () => (await text(ann, '#start-error')) !== advised && (await text(ann, '#start-error')) !== '',
      5000,
    )) && (await text(ann, '#start-error'));
  await keep('refused-1440', await ann.screenshot());

  await ann.click('#files [aria-label^="Delete"]');
  await ann.click('#files [aria-label^="Delete"]');
  const deleted = await until(async () => !(await ann.$(`[data-file="${file}"]`)), 5000);

  await ann.click('input[value="hls"]');
  await ann.click('#start');
  // Playback starts when the first segment is available.
  await until(() => shown(ann, '#outputs .tools button'), 5000);
  const watched = await until(async () => {
    if (!(await shown(ann, '#player')))
      await ann.evaluate(() =>
        [.../** @type {NodeListOf<HTMLElement>} */ (document.querySelectorAll('#outputs button'))]
          .find((button) => button.textContent.trim() === 'Watch')
          ?.click(),
      );
    const plays = await ann.$eval(
      '#player-video',
      (video) => video.currentTime > 1 && video.videoWidth > 0 && video.webkitAudioDecodedByteCount > 0,
    );
    if (!plays && (await text(ann, '#player .error'))) await ann.click('#player-close');
    return plays;
  }, 20_000);
  await keep('live-1440', await ann.screenshot());
  return {
    badge,
    aloud,
    badge_later,
    watched,
    told,
    long,
    overflow_px,
    unbadged,
    over_aloud,
    listed,
    file,
    plays,
    seeks,
    length_s,
    closed,
    probed,
    advised,
    refused,
    deleted,
    faults,
  };
}

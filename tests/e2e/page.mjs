// The server's web page in a browser.

import { throughRelay } from './browser.mjs';

const SIZES = {
  wide: { width: 1440, height: 900 },
  phone: { width: 390, height: 844, deviceScaleFactor: 2, isMobile: true, hasTouch: true },
};

/**
 * Opens the page. `faults` collects its errors; its media goes through the port `relay`, if given.
 * @param {{ relay?: string, query?: string }} [more]
 */
export async function visit(browser, options, name, size, faults, more = {}) {
  const { relay, query = '' } = more;
  const context = await browser.createBrowserContext();
  await context.overridePermissions(options.url, ['camera', 'microphone']);
  const page = await context.newPage();
  await page.setViewport(SIZES[size]);
  page.on('pageerror', (error) => faults.push(`${name}: ${error.message ?? error}`));
  page.on('requestfailed', (request) => {
    if (!request.failure()?.errorText.includes('ERR_ABORTED'))
      faults.push(`${name}: ${request.url()}: ${request.failure()?.errorText}`);
  });
  if (relay) await throughRelay(page, relay);
  await page.goto(`${options.url}/${query}`, { waitUntil: 'load' });
  return page;
}

const type = async (page, selector, text) => {
  await page.$eval(selector, (field) => {
    field.value = '';
  });
  await page.type(selector, text);
};

/** Fills the form and joins; resolves with the ms until the mixed video moved. */
export async function joinByForm(page, name, room) {
  await type(page, '#name', name);
  await type(page, '#room', room);
  const watches = new URL(page.url()).searchParams.has('watch');
  if (!watches) await page.waitForSelector('#lobby-cam[aria-pressed="true"]', { timeout: 30_000 });
  const from = performance.now();
  await page.click('#join');
  await moving(page, 20_000);
  return Math.round(performance.now() - from);
}

/** Waits until the mixed video shows new frames. */
export async function moving(page, timeout) {
  await page.waitForFunction(() => document.querySelector('#mix')?.videoWidth > 0, { timeout, polling: 50 });
  const before = await page.$eval('#mix', (video) => video.getVideoPlaybackQuality().totalVideoFrames);
  await page.waitForFunction(
    (frames) => document.querySelector('#mix').getVideoPlaybackQuality().totalVideoFrames > frames + 3,
    { timeout, polling: 50 },
    before,
  );
}

export const roomDocument = async (options) => (await fetch(`${options.url}/v1/rooms/${options.room}`)).json();

export async function until(test, ms) {
  const end = performance.now() + ms;
  while (!(await test())) {
    if (performance.now() > end) return false;
    await new Promise((resolve) => {
      setTimeout(resolve, 100);
    });
  }
  return true;
}

// What belongs to one user on the page: the language, the devices during a call, and the list of keys.

import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { joinByForm, roomDocument, until, visit } from '../page.mjs';

const text = (page, selector) => page.$eval(selector, (node) => node.textContent.trim());
const pause = (ms) =>
  new Promise((resolve) => {
    setTimeout(resolve, ms);
  });

/** The serious and critical violations that axe-core finds. */
async function violations(page, place) {
  const source = await readFile(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
  await page.evaluate(source);
  const found = await page.evaluate(() => window.axe.run(document, { resultTypes: ['violations'] }));
  return found.violations
    .filter(({ impact }) => impact === 'serious' || impact === 'critical')
    .map(({ id, nodes }) => `${place}: ${id} ${nodes.map(({ target }) => target.join(' ')).join(', ')}`);
}

/**
 * The visible texts of the page that are cut off: buttons, labels and headings whose text is wider than they are.
 * Names that people typed, and the names of devices, may be shortened.
 */
const cutOff = (page) =>
  page.evaluate(() => {
    const nodes = /** @type {NodeListOf<HTMLElement>} */ (
      document.querySelectorAll('button, label, legend, h1, h2, h3, .small span, .chips span, .segments span, dt')
    );
    return [...nodes]
      .filter((node) => node.offsetParent && !node.closest('.sr, .person, .language') && node.innerText?.trim())
      .filter((node) => node.scrollWidth > node.clientWidth + 1 && getComputedStyle(node).display !== 'inline')
      .map((node) => node.innerText.trim());
  });

/** The lobby in every language, on a phone and on a wide screen, and the choice of one. */
export async function page_languages({ chromium, options, keep }) {
  const browser = await chromium();
  const faults = [];
  const looks = {};
  const serious = [];
  for (const size of ['phone', 'wide'])
    for (const tag of ['en', 'ko', 'de', 'ja', 'es', 'fr', 'ar']) {
      const page = await visit(browser, options, tag, size, faults, { query: `?lang=${tag}` });
      await page.waitForSelector('#lobby-cam[aria-pressed="true"]', { timeout: 10_000 });
      const { lang, dir, overflow } = await page.evaluate(() => ({
        lang: document.documentElement.lang,
        dir: document.documentElement.dir,
        overflow: document.documentElement.scrollWidth - innerWidth,
      }));
      looks[`${tag} ${size}`] = { lang, dir, overflow, join: await text(page, '#join'), cut: await cutOff(page) };
      if (tag === 'ar') serious.push(...(await violations(page, `lobby ${tag} ${size}`)));
      await keep(`lobby-${tag}-${size}`, await page.screenshot());
      await page.browserContext().close();
    }
  const ann = await visit(browser, options, 'Ann', 'wide', faults);
  const before = await text(ann, '#join');
  await ann.select('#language', 'ar');
  const changed = await until(async () => (await text(ann, '#join')) === looks['ar wide'].join, 5000);
  // The picture of the camera goes on.
  const camera = await ann.$eval('#preview', (video) => !video.paused && video.readyState >= 2);
  await ann.reload({ waitUntil: 'load' });
  const remembered = await until(async () => (await text(ann, '#join')) === looks['ar wide'].join, 5000);
  return { looks, serious, before, changed, camera, remembered, faults };
}

/** Devices, language and keys during a call in Arabic. */
export async function page_settings({ chromium, options, keep }) {
  const browser = await chromium();
  const faults = [];
  const serious = [];
  const ann = await visit(browser, options, 'Ann', 'wide', faults, { query: '?lang=ar' });
  await joinByForm(ann, 'Ann', options.room);
  const mine = async () => (await roomDocument(options)).participants.find((p) => p.name === 'Ann');
  // The picture has the same direction everywhere; only the page around it is mirrored.
  const mirrored = await ann.evaluate(() => {
    const [mic, leave] = ['#mic', '#leave'].map((id) => document.querySelector(id).getBoundingClientRect().left);
    return leave < mic;
  });
  await keep('call-ar-1440', await ann.screenshot());
  serious.push(...(await violations(ann, 'call ar')));
  await ann.keyboard.press('d');
  await ann.waitForSelector('#settings[open]', { timeout: 5000 });
  const offered = await until(() => ann.$$eval('#settings-mic option', (all) => all.length > 1), 5000);
  serious.push(...(await violations(ann, 'settings ar')));
  const cut = await cutOff(ann);
  await keep('settings-ar-1440', await ann.screenshot());

  // Another microphone is used at once, and the call goes on.
  const device = () => ann.evaluate(() => window.commingle.session.local.getAudioTracks()[0]?.getSettings().deviceId);
  const first = await device();
  const other = await ann.$$eval(
    '#settings-mic option',
    (all, used) => all.map((option) => /** @type {HTMLOptionElement} */ (option).value).find((id) => id !== used),
    first,
  );
  await ann.select('#settings-mic', other);
  const replaced = await until(async () => (await device()) === other, 5000);
  const unmuted = !(await mine()).audio_muted;

  await ann.select('#settings-language', 'de');
  const german = await until(
    () => ann.$eval('#leave', (leave) => leave.getAttribute('aria-label') === 'Anruf verlassen'),
    5000,
  );
  const left_to_right = await ann.evaluate(() => document.documentElement.dir === 'ltr');
  await ann.keyboard.press('Escape');
  const closed = await until(() => ann.$eval('#settings', (dialog) => !dialog.hasAttribute('open')), 3000);

  // A muted microphone stays muted with another device, and is heard by nobody.
  await ann.keyboard.press('m');
  await until(async () => (await mine()).audio_muted, 5000);
  await ann.evaluate((id) => window.commingle.session.useDevice('audio', { deviceId: { exact: id } }), first);
  await pause(500);
  const stays_muted = (await mine()).audio_muted && (await device()) === first;

  await ann.keyboard.press('?');
  await ann.waitForSelector('#shortcuts[open]', { timeout: 5000 });
  const keys = await ann.$$eval('#shortcuts-list kbd', (all) => all.map((key) => key.textContent));
  serious.push(...(await violations(ann, 'keys de')));
  await keep('keys-de-1440', await ann.screenshot());
  await ann.keyboard.press('m'); // belongs to the dialogue
  await ann.keyboard.press('Escape');
  const untouched = (await mine()).audio_muted;
  await ann.click('#leave');
  return {
    mirrored,
    offered,
    replaced,
    unmuted,
    german,
    left_to_right,
    closed,
    stays_muted,
    untouched,
    keys,
    cut,
    serious,
    faults,
  };
}

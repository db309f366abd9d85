// People in a call on the page: lobby, chat, hands, reactions, moderation and pins, with three people.

import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { joinByForm, moving, until, visit } from '../page.mjs';

const text = (page, selector) => page.$eval(selector, (node) => node.textContent.trim()).catch(() => '');
const shows = (page, selector) => page.$eval(selector, (node) => node.getClientRects().length > 0).catch(() => false);
const click = (page, selector) => page.$eval(selector, (node) => node.click());
const pause = (ms) =>
  new Promise((resolve) => {
    setTimeout(resolve, ms);
  });

/** The serious and critical violations that axe-core finds, as `place: rule elements`. */
async function violations(page, place) {
  const source = await readFile(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
  await page.evaluate(source);
  const found = await page.evaluate(() => window.axe.run(document, { resultTypes: ['violations'] }));
  return found.violations
    .filter(({ impact }) => impact === 'serious' || impact === 'critical')
    .map(({ id, nodes }) => `${place}: ${id} ${nodes.map(({ target }) => target.join(' ')).join(', ')}`);
}

/** Fills the form and sends it, without waiting for the picture. */
async function ask_in(page, name, room) {
  await page.waitForSelector('#lobby-cam[aria-pressed="true"]', { timeout: 30_000 });
  for (const [selector, value] of [['#name', name], ['#room', room]])
    await page.$eval(selector, (field, typed) => Object.assign(field, { value: typed }), value);
  await click(page, '#join');
}

/** Opens the list of people, and the menu of one of them, and chooses an entry. */
async function choose(page, name, entry) {
  if (!(await shows(page, '#panel'))) await click(page, '#people-toggle');
  await page.waitForFunction(
    (wanted) => [...document.querySelectorAll('#people .person b')].some((node) => node.textContent === wanted),
    { timeout: 5000 },
    name,
  );
  await page.evaluate((wanted) => {
    const rows = [...document.querySelectorAll('#people .person')];
    const row = rows.find((one) => one.querySelector('b').textContent === wanted);
    /** @type {HTMLElement} */ (row.querySelector('.do')).click();
  }, name);
  await page.waitForSelector('.menu button', { timeout: 2000 });
  return press(page, '.menu button', entry);
}

/** Presses the button with this text; false if there is none. */
const press = (page, selector, label) =>
  page.$$eval(
    selector,
    (all, wanted) => {
      const button = all.find((one) => one.textContent.includes(wanted));
      button?.click();
      return Boolean(button);
    },
    label,
  );

/** A tour with a moderator and two guests, one of them on a phone. */
export async function page_people({ chromium, options, ask, keep }) {
  const browser = await chromium();
  const faults = [];
  const serious = [];
  const { room } = options;
  const token = async (role, name) => `?token=${await ask(`token ${role} ${name}`)}`;
  const document_ = (page) => page.evaluate(() => window.commingle.session?.room);
  const idOf = async (page, name) => (await document_(page)).participants.find((p) => p.name === name)?.id;

  const ann = await visit(browser, options, 'Ann', 'wide', faults, { query: await token('moderator', 'Ann') });
  await joinByForm(ann, 'Ann', room);
  await ann.waitForSelector('#room-menu:not([hidden])', { timeout: 5000 });
  await click(ann, '#people-toggle');
  await click(ann, '#room-menu');
  serious.push(...(await violations(ann, 'menu of the room')));
  await press(ann, '.menu button', 'Lobby');
  const lobby_on = await until(async () => (await document_(ann)).lobby === true, 5000);

  // Ben waits with his own picture, and is admitted.
  const ben = await visit(browser, options, 'Ben', 'phone', faults, { query: await token('participant', 'Ben') });
  await ask_in(ben, 'Ben', room);
  const waits = await until(() => shows(ben, '#wait'), 10_000);
  const sees_nobody = (await ben.$$('#people li')).length <= 1;
  const told_moderator = await until(async () => /Ben waits/.test(await text(ann, '#advice')), 5000);
  serious.push(...(await violations(ben, 'waiting')), ...(await violations(ann, 'lobby')));
  await keep('waiting-390', await ben.screenshot());
  await keep('lobby-1440', await ann.screenshot());
  await press(ann, '#waiting-people button', 'Admit');
  const admitted = await until(async () => !(await shows(ben, '#wait')), 5000);
  await moving(ben, 15_000);

  // Zoe is refused, asks again and is admitted.
  const zoe = await visit(browser, options, 'Zoe', 'wide', faults, { query: await token('participant', 'Zoe') });
  await ask_in(zoe, 'Zoe', room);
  await until(() => shows(ann, '#waiting-people .refuse'), 10_000);
  await click(ann, '#waiting-people .refuse');
  const refused = await until(async () => /did not let you in/.test(await text(zoe, '#error')), 5000);
  await ask_in(zoe, 'Zoe', room);
  await until(() => shows(ann, '#waiting-people .admit'), 10_000);
  await click(ann, '#waiting-people .admit');
  const admitted_again = await until(async () => (await shows(zoe, '#call')) && !(await shows(zoe, '#wait')), 10_000);
  await moving(zoe, 15_000);

  // Chat: to everyone, and in private.
  await click(ben, '#chat-toggle');
  await ben.type('#chat-text', 'Hello <b>all</b>, see https://example.org/a.');
  await click(ben, '#chat-send');
  const unread = await until(async () => (await text(ann, '#chat-badge')) === '1', 5000);
  await click(ann, '#chat-toggle');
  const message = () =>
    ann.$eval('#chat-log .group', (group) => {
      const link = group.querySelector('a');
      const html = group.querySelector('p b')?.outerHTML ?? null;
      return { text: group.querySelector('p').textContent, html, rel: link?.rel, href: link?.href };
    });
  const said = await message();
  await ann.select('#chat-to', await idOf(ann, 'Ben'));
  await ann.type('#chat-text', 'Only for you');
  await ann.keyboard.press('Enter');
  const private_seen = await until(async () => /Only for you/.test(await text(ben, '#chat-log .private')), 5000);
  await click(zoe, '#chat-toggle');
  await until(async () => /Hello/.test(await text(zoe, '#chat-log')), 5000);
  const private_hidden = !/Only for you/.test(await text(zoe, '#chat-log'));
  serious.push(...(await violations(ann, 'chat')), ...(await violations(ben, 'chat on a phone')));
  await keep('chat-1440', await ann.screenshot());
  await keep('chat-390', await ben.screenshot());
  const overflow_px = await ben.evaluate(() => document.documentElement.scrollWidth - innerWidth);
  await click(ben, '#chat-close');

  // A hand by its key, lowered by the moderator; a reaction.
  await zoe.keyboard.press('Escape');
  await zoe.focus('#stage');
  await zoe.keyboard.press('h');
  await click(ann, '#people-toggle');
  const hand = await until(async () => /Zoe/.test(await text(ann, '#hands')), 5000);
  await keep('hands-1440', await ann.screenshot());
  await press(ann, '#hands button', 'Lower');
  const lowered = await until(() => zoe.$eval('#hand', (button) => button.ariaPressed === 'false'), 5000);
  await click(ben, '#react');
  await click(ben, '#reactions button');
  const reaction = await until(() => ann.$eval('#floats', (floats) => floats.childElementCount > 0), 3000);
  await click(ben, '#react');

  // A moderator's mute is not cleared by the muted person, but by asking.
  const silent = () => zoe.evaluate(() => !window.commingle.session.microphone);
  await choose(ann, 'Zoe', 'Mute');
  const muted = await until(async () => /Ann muted you/.test(await text(zoe, '#advice')) && (await silent()), 5000);
  await keep('muted-1440', await zoe.screenshot());
  await click(zoe, '#mic');
  await pause(500);
  const stays_muted = await silent();
  await choose(ann, 'Zoe', 'Ask to unmute');
  const asked = await until(async () => /asks you to unmute/.test(await text(zoe, '#advice')), 5000);
  await press(zoe, '#advice button', 'Unmute');
  const unmuted = await until(async () => !(await silent()), 5000);
  serious.push(...(await violations(zoe, 'call')));

  // Pins: for everyone, and of one's own.
  const zoes = await idOf(ann, 'Zoe');
  await choose(ann, 'Zoe', 'Pin for everyone');
  const pinned = await until(async () => (await document_(ann)).layout.pinned?.includes(zoes), 5000);
  await choose(zoe, 'Ben', 'Pin for me');
  const own_pin = await until(
    () => zoe.evaluate(() => window.commingle.session.self?.receives?.view?.startsWith('own-')),
    8000,
  );
  await choose(ann, 'Ben', 'Make a moderator');
  const roleOf = async (name) => (await document_(ann)).participants.find((p) => p.name === name)?.role;
  const promoted = await until(async () => (await roleOf('Ben')) === 'moderator', 5000);

  // Removed, and kept out.
  await choose(ann, 'Zoe', 'Remove');
  await ann.waitForSelector('.ask[open]', { timeout: 2000 });
  serious.push(...(await violations(ann, 'question')));
  await keep('remove-1440', await ann.screenshot());
  await click(ann, '.ask input[value="600"]');
  await click(ann, '.ask .sure');
  const removed = await until(async () => /removed you/.test(await text(zoe, '#error')), 5000);
  await ask_in(zoe, 'Zoe', room);
  await pause(300);
  const kept_out = await until(async () => /removed you from “.*again/.test(await text(zoe, '#error')), 5000);
  await click(ann, '#leave');
  await click(ben, '#leave');
  return {
    lobby_on,
    waits,
    sees_nobody,
    told_moderator,
    admitted,
    refused,
    admitted_again,
    unread,
    said,
    private_seen,
    private_hidden,
    overflow_px,
    hand,
    lowered,
    reaction,
    muted,
    stays_muted,
    asked,
    unmuted,
    pinned,
    own_pin,
    promoted,
    removed,
    kept_out,
    serious,
    faults,
  };
}

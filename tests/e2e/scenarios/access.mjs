// The page by keyboard and for assistive technology, on small screens, on thin tiers, and its refusals.

import { readFile } from 'node:fs/promises';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import { joinByForm, roomDocument, until, visit } from '../page.mjs';

const text = (page, selector) => page.$eval(selector, (node) => node.textContent.trim()).catch(() => '');
const focused = (page) => page.evaluate(() => document.activeElement.id);
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

/** Records what the page copies; the browser has no clipboard here. */
const keepCopies = (page) =>
  page.evaluate(() => {
    window.copied = [];
    const clipboard = { writeText: async (copied) => void window.copied.push(copied) };
    Object.defineProperty(navigator, 'clipboard', { value: clipboard });
  });

/** Focus, push-to-talk, leaving and the toolbar by keyboard; axe-core in all parts of the page. */
export async function page_keyboard({ chromium, options, keep }) {
  const browser = await chromium();
  const faults = [];
  const serious = [];
  const ann = await visit(browser, options, 'Ann', 'wide', faults);
  await ann.waitForSelector('#lobby-cam[aria-pressed="true"]', { timeout: 10_000 });
  // The simulated microphone beeps, so its meter moves meanwhile.
  const spoken = [];
  for (let i = 0; i < 4; i += 1) {
    const root = await ann.$('#mic-select');
    spoken.push((await ann.accessibility.snapshot({ root, interestingOnly: false }))?.name);
    await pause(300);
  }
  serious.push(...(await violations(ann, 'lobby')));
  await joinByForm(ann, 'Ann', options.room);
  const first_focus = await focused(ann);
  const mine = async () => (await roomDocument(options)).participants.find((p) => p.name === 'Ann');
  for (const key of ['Space', 'Enter', 'Escape', 'Backspace', 'Delete']) await ann.keyboard.press(key);
  await ann.focus('#leave');
  await ann.keyboard.press('Enter');
  await pause(500);
  const stays = (await mine())?.name === 'Ann' && (await ann.$eval('#call', (call) => !call.hidden));
  const warned = await ann.$eval('#leave', (leave) => leave.getAttribute('aria-label'));

  await ann.click('#mic');
  const muted = await until(async () => (await mine()).audio_muted, 5000);
  await ann.keyboard.down('Space'); // the microphone's button has the focus by the click
  const talks = await until(async () => !(await mine()).audio_muted, 5000);
  await ann.keyboard.up('Space');
  const muted_again = await until(async () => (await mine()).audio_muted, 5000);

  await ann.focus('#mic');
  const walked = [];
  for (const key of ['ArrowRight', 'ArrowRight', 'ArrowLeft', 'End', 'ArrowRight', 'Home', 'ArrowLeft']) {
    await ann.keyboard.press(key);
    walked.push(await focused(ann));
  }
  const tab_stops = await ann.$$eval('#controls button', (all) => all.filter((one) => one.tabIndex === 0).length);

  serious.push(...(await violations(ann, 'call')));
  await ann.click('#people-toggle');
  serious.push(...(await violations(ann, 'people')));
  // A moderator changes the layout of the room by keyboard, and then only its own.
  await ann.waitForSelector('#room-layouts-section:not([hidden])', { timeout: 5000 });
  await ann.keyboard.press('l');
  serious.push(...(await violations(ann, 'layouts')));
  await keep('layouts-1440', await ann.screenshot());
  await ann.focus('#room-layouts [data-kind="auto"]');
  for (const key of ['ArrowRight', 'ArrowRight', 'Enter']) await ann.keyboard.press(key);
  const kind = async () => (await roomDocument(options)).layout.kind;
  const room_layout = await until(async () => (await kind()) === 'grid_fill', 5000);
  await ann.focus('#own-layouts [data-kind="active"]');
  await ann.keyboard.press('Enter');
  const seen = async () => {
    const { views, participants: [{ receives }] } = await roomDocument(options);
    return views.find(({ view }) => view === receives.view)?.kind;
  };
  const own_layout = await until(async () => (await seen()) === 'active' && (await kind()) === 'grid_fill', 5000);
  const marked = () => ann.$$eval('.layout[aria-pressed="true"]', (all) => all.map((one) => one.textContent));
  await until(async () => (await marked()).join() === 'Speaker only,Filled grid', 3000);
  const pressed = await marked();
  await ann.keyboard.press('Escape');
  const layouts_closed = (await focused(ann)) === 'layouts-toggle';
  await ann.waitForSelector('#studio-toggle:not([hidden])', { timeout: 5000 });
  await ann.click('#studio-toggle');
  await ann.emulateMediaFeatures([{ name: 'prefers-color-scheme', value: 'light' }]);
  await pause(400); // colours change gradually
  serious.push(...(await violations(ann, 'panel, light')));
  await keep('panel-light-1440', await ann.screenshot());
  // Input sources that have failed can be dismissed.
  await ann.evaluate(() =>
    window.commingle.session.call('/v1/rooms/{room}/inputs', {
      method: 'POST',
      body: { url: 'file:is-not-there.mp4', name: 'Broken' },
    }).catch(() => {}),
  );
  const rows = () => ann.$$eval('#outputs .output', (all) => all.length);
  const failed = await until(() => ann.$('#outputs [data-state="failed"] .dismiss:not([hidden])'), 10_000);
  if (failed) await ann.click('#outputs [data-state="failed"] .dismiss');
  const dismissed = failed && (await rows()) === 0;
  await ann.focus('#leave');
  await ann.keyboard.press('Enter');
  await ann.keyboard.press('Enter');
  const left = await until(() => ann.$eval('#lobby', (lobby) => !lobby.hidden), 5000);
  return {
    spoken,
    first_focus,
    stays,
    warned,
    muted,
    talks,
    muted_again,
    walked,
    tab_stops,
    room_layout,
    own_layout,
    pressed,
    layouts_closed,
    dismissed,
    left,
    serious,
    faults,
  };
}

/** Phones: what the screen shows of a wide picture in portrait and landscape, on the tier `audio`, and as a viewer. */
export async function page_phone({ chromium, options, keep }) {
  const browser = await chromium();
  const faults = [];
  const serious = [];
  const ann = await visit(browser, options, 'Ann', 'wide', faults);
  await joinByForm(ann, 'Ann', options.room);

  // A wide picture, as while the server has no time for an upright one.
  const bob = await visit(browser, options, 'Bob', 'phone', faults, { query: '?view=program' });
  const landscape = { width: 844, height: 390, deviceScaleFactor: 2, isMobile: true, hasTouch: true };
  await bob.setViewport(landscape);
  const join_in_view = await bob.$eval('#join', (join) => {
    const box = join.getBoundingClientRect();
    return box.top >= 0 && box.bottom <= innerHeight;
  });
  await bob.setViewport({ ...landscape, width: 390, height: 844 });
  await joinByForm(bob, 'Bob', options.room);
  const enlarged = await until(async () => (await text(bob, '#closeup .tile-label')) === 'Ann', 5000);
  const layout = await bob.evaluate(() => {
    const box = (selector) => document.querySelector(selector).getBoundingClientRect();
    const [picture, closeup, controls] = ['#picture', '#closeup', '#controls'].map(box);
    return {
      panel: document.querySelector('#call').getAttribute('data-panel'),
      picture_width: picture.width / innerWidth,
      unused: Math.round(controls.top - closeup.bottom + closeup.top - picture.bottom),
      signal: document.querySelector('#signal').getAttribute('aria-label'),
    };
  });
  // No message covers the picture.
  const covers = await bob.evaluate(() => {
    const picture = document.querySelector('#picture').getBoundingClientRect();
    return ['#status', '#airs', '#advice'].filter((selector) => {
      const box = document.querySelector(selector).getBoundingClientRect();
      return box.height > 0 && box.bottom > picture.top && box.top < picture.bottom;
    });
  });
  await bob.evaluate(() => window.commingle.session.local.getAudioTracks()[0].dispatchEvent(new Event('ended')));
  const unplugged = (await until(async () => /unplugged/.test(await text(bob, '#advice')), 3000))
    ? await text(bob, '#advice p')
    : '';
  serious.push(...(await violations(bob, 'phone')));
  await keep('unplugged-390', await bob.screenshot());
  await bob.click('#leave');

  const eve = await visit(browser, options, 'Eve', 'phone', faults, { query: '?watch&tier=audio' });
  await keepCopies(eve);
  await eve.$eval('#name', (field) => {
    field.value = 'Eve';
  });
  await eve.$eval('#room', (field, room) => {
    field.value = room;
  }, options.room);
  await eve.click('#join');
  const heard = await until(() => eve.$eval('#stage', (stage) => stage.dataset.state === 'live'), 10_000);
  const names = await until(async () => (await text(eve, '#roster .name')) === 'Ann', 5000);
  const why = await text(eve, '#still-note');
  const speaks = await until(async () => Boolean(await eve.$('#roster .speaking')), 5000);
  serious.push(...(await violations(eve, 'audio only')));
  await keep('audio-390', await eve.screenshot());
  await eve.click('#share');
  await until(() => eve.evaluate(() => window.copied.length > 0), 2000);
  const [link] = await eve.evaluate(() => window.copied);
  const watch_link = link === `${options.url}/${options.room}?watch`;
  await eve.click('#leave');

  await eve.$eval('#room', (field) => {
    field.value = 'two words';
  });
  await eve.click('#join');
  const refused_name = await text(eve, '#error');
  const suggested = await text(eve, '#problem-actions button');
  return {
    join_in_view,
    enlarged,
    layout,
    covers,
    unplugged,
    heard,
    names,
    why,
    speaks,
    watch_link,
    refused_name,
    suggested,
    serious,
    faults,
  };
}

/** On a server with a key: a refusal without an invitation; a moderator invites; the invited person watches. */
export async function page_invitation({ chromium, options, ask, keep }) {
  const browser = await chromium();
  const faults = [];
  const token = await ask('token');
  const open = (name, query) => visit(browser, options, name, 'wide', faults, { query });
  const bob = await open('Bob', encodeURIComponent(options.room));
  await bob.waitForSelector('#lobby-cam[aria-pressed="true"]', { timeout: 10_000 });
  const room_of_path = await bob.$eval('#room', (field) => field.value);
  await bob.type('#name', 'Bob');
  await bob.click('#join');
  await until(async () => (await text(bob, '#error')) !== '', 5000);
  const refused = await text(bob, '#error');
  const button = await text(bob, '#problem-actions button');
  const field = await focused(bob);
  const serious = await violations(bob, 'refused');
  await keep('needs-invitation-1440', await bob.screenshot());

  const ann = await open('Ann', `?token=${token}`);
  await joinByForm(ann, 'Ann', options.room);
  await keepCopies(ann);
  await until(async () => (await text(ann, '#share')) === 'Invite', 5000);
  await ann.click('#share');
  await ann.click('#invite-form input[value="viewer"]');
  serious.push(...(await violations(ann, 'invite')));
  await ann.click('#invite-create');
  await until(() => ann.evaluate(() => window.copied.length > 0), 5000);
  const [link] = await ann.evaluate(() => window.copied);
  await keep('invite-1440', await ann.screenshot());

  await bob.type('#invitation', link ?? 'none');
  await bob.click('#join');
  // The invitation is for watching only.
  await until(async () => (await text(bob, '#problem-actions button')) === 'Watch instead', 5000);
  const offered = await text(bob, '#problem-actions button');
  await bob.click('#problem-actions button');
  const watches = await until(() => bob.$eval('#mix', (mix) => mix.videoWidth > 0), 10_000);
  const may_not_invite = (await text(bob, '#share')) === 'Copy link';
  return {
    room_of_path,
    refused,
    button,
    field,
    link: Boolean(link),
    offered,
    watches,
    may_not_invite,
    serious,
    faults,
  };
}

/** A page of another origin in the same browser: what it reads and changes on this server. */
export async function foreign_page({ chromium, options }) {
  const site = createServer((_, response) => {
    response.setHeader('content-type', 'text/html');
    response.end('<title>another site</title>');
  });
  site.listen(0, '127.0.0.1');
  await once(site, 'listening');
  const { port } = /** @type {import('node:net').AddressInfo} */ (site.address());
  const browser = await chromium();
  const page = await browser.newPage();
  await page.goto(`http://127.0.0.1:${port}/`);
  const done = await page.evaluate(async (url) => {
    const read = async (path, init) => {
      try {
        const response = await fetch(url + path, init);
        return { status: response.status, type: response.type, body: await response.text() };
      } catch (error) {
        return { error: error.name };
      }
    };
    const json = (body) => ({ method: 'POST', headers: { 'content-type': 'application/json' }, body });
    const socket = await new Promise((resolve) => {
      const events = new WebSocket(`${url.replace('http', 'ws')}/v1/rooms/kept/events`);
      events.onmessage = () => resolve('message');
      events.onclose = () => resolve('closed');
    });
    const image = await new Promise((resolve) => {
      const picture = new Image();
      picture.onload = () => resolve('loaded');
      picture.onerror = () => resolve('refused');
      picture.src = `${url}/favicon.svg`;
    });
    return {
      list: await read('/v1/rooms'),
      metrics: await read('/metrics', { mode: 'no-cors' }),
      create: await read('/v1/rooms', json('{"name":"made"}')),
      // Without a preflight: a simple request.
      simple: await read('/v1/rooms', { method: 'POST', mode: 'no-cors', body: '{"name":"made"}' }),
      remove: await read('/v1/rooms/kept', { method: 'DELETE' }),
      join: await read('/whip/kept', { method: 'POST', headers: { 'content-type': 'application/sdp' }, body: 'v=0' }),
      socket,
      image,
    };
  }, options.url);
  site.close();
  return done;
}

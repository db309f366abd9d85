// The server's web page in real use.

import { joinByForm, moving, roomDocument, until, visit } from '../page.mjs';

/** The view that a participant receives. */
function viewOf(document_, name) {
  const person = document_.participants.find((p) => p.name === name);
  return document_.views.find((v) => v.view === person?.receives.view);
}

/** The distance of the local preview from the own tile in the mixed video, in CSS pixels; null if it is hidden. */
async function selfTileError(page, document_, name) {
  const person = document_.participants.find((p) => p.name === name);
  const view = viewOf(document_, name);
  const tile = view.tiles.find((t) => t.participant === person?.id);
  if (!tile) return null;
  return page.evaluate(
    (t, canvas) => {
      const overlay = document.querySelector('#self-tile');
      if (!overlay || overlay.hidden) return null;
      const mix = document.querySelector('#mix');
      const box = mix.getBoundingClientRect();
      // The rectangle of the video in its element (object-fit: contain).
      const scale = Math.min(box.width / canvas.width, box.height / canvas.height);
      const left = box.left + (box.width - canvas.width * scale) / 2;
      const top = box.top + (box.height - canvas.height * scale) / 2;
      const real = overlay.getBoundingClientRect();
      return Math.max(
        Math.abs(real.left - (left + t.x * scale)),
        Math.abs(real.top - (top + t.y * scale)),
        Math.abs(real.right - (left + (t.x + t.width) * scale)),
        Math.abs(real.bottom - (top + (t.y + t.height) * scale)),
      );
    },
    tile,
    view.canvas,
  );
}

/** Two participants use the page, one on a phone: mute, camera off and on, leave, removal. */
export async function page_call({ chromium, options, keep }) {
  const browser = await chromium();
  const faults = [];
  const shot = async (page, name) => keep(name, await page.screenshot());
  const ann = await visit(browser, options, 'Ann', 'wide', faults);
  await shot(ann, 'page-lobby-1440');
  const annJoined = await joinByForm(ann, 'Ann', options.room);
  const bob = await visit(browser, options, 'Bob', 'phone', faults);
  await shot(bob, 'page-lobby-390');
  const bobJoined = await joinByForm(bob, 'Bob', options.room);

  const both = await until(async () => (await roomDocument(options)).participants.length === 2, 10_000);
  const listed = await until(async () => (await ann.$$('#people li')).length === 2, 5_000);
  await new Promise((resolve) => {
    setTimeout(resolve, 2500);
  });
  await shot(ann, 'page-call-1440');
  await shot(bob, 'page-call-390');
  const document_ = await roomDocument(options);
  const self_tile_error_px = [await selfTileError(ann, document_, 'Ann'), await selfTileError(bob, document_, 'Bob')];
  const overflow_px = await bob.evaluate(() => document.documentElement.scrollWidth - innerWidth);
  const stats = await ann.$eval('#stats', (line) => line.textContent);

  const sees = (test) =>
    until(async () => test((await roomDocument(options)).participants.find((p) => p.name === 'Ann')), 5_000);
  await ann.click('#mic');
  const muted = await sees((p) => p.audio_muted);
  await ann.click('#mic');
  const unmuted = await sees((p) => !p.audio_muted);
  await ann.click('#cam');
  const camera_off = await sees((p) => p.video_muted);
  await new Promise((resolve) => {
    setTimeout(resolve, 1500);
  });
  await shot(bob, 'page-camera-off-390');
  await ann.click('#cam');
  const camera_on = await sees((p) => !p.video_muted);

  // Browsers differ in the choices of their dialogue, so the page gets a screen drawn here.
  await ann.evaluate(() => {
    const screen = Object.assign(document.createElement('canvas'), { width: 1280, height: 720 });
    const pen = screen.getContext('2d', { alpha: false });
    const draw = () => {
      pen.fillStyle = '#1e7a3c';
      pen.fillRect(0, 0, 1280, 720);
      pen.fillStyle = '#fff';
      pen.font = '80px sans-serif';
      pen.fillText(`Slide ${Math.round(performance.now() / 500)}`, 120, 380);
    };
    draw();
    setInterval(draw, 100);
    navigator.mediaDevices.getDisplayMedia = async () => screen.captureStream(10);
  });
  // As Bob sees it.
  const tileOf = async (source) => {
    const document_ = await roomDocument(options);
    const person = document_.participants.find((p) => p.name === 'Ann');
    const view = viewOf(document_, 'Bob');
    return { canvas: view.canvas, ...view.tiles.find((t) => t.participant === person?.id && t.source === source) };
  };
  // The middle of the lower half of a tile, as Bob receives it.
  const colour = ({ canvas, x, y, width, height }) =>
    bob.evaluate(
      (at) => {
        const easel = Object.assign(document.createElement('canvas'), { width: 1, height: 1 });
        const pen = easel.getContext('2d');
        const mix = document.querySelector('#mix');
        pen.drawImage(mix, at.x * mix.videoWidth, at.y * mix.videoHeight, 1, 1, 0, 0, 1, 1);
        return [...pen.getImageData(0, 0, 1, 1).data].slice(0, 3);
      },
      { x: (x + width / 2) / canvas.width, y: (y + height * 0.75) / canvas.height },
    );
  const green = ([r, g, b]) => Math.hypot(r - 0x1e, g - 0x7a, b - 0x3c) < 30;
  const screens = [];
  for (let time = 0; time < 2; time += 1) {
    await ann.click('#screen');
    const shown = await until(async () => {
      const tile = await tileOf('screen');
      return tile.width > 0 && green(await colour(tile));
    }, 8_000);
    if (time === 0) {
      await shot(ann, 'page-screen-1440');
      await shot(bob, 'page-screen-390');
    }
    const camera_too = (await tileOf('camera')).width > 0;
    await ann.click('#screen');
    const gone = await until(async () => (await tileOf('screen')).width === undefined, 5_000);
    screens.push({ shown, camera_too, gone });
  }
  await ann.click('#leave');
  const left = await until(async () => (await roomDocument(options)).participants.length === 1, 5_000);
  const lobby = await until(() => ann.$eval('#lobby', (lobby_) => lobby_.getClientRects().length > 0), 3_000);

  const [last] = (await roomDocument(options)).participants;
  await fetch(`${options.url}/v1/rooms/${options.room}/participants/${last.id}`, { method: 'DELETE' });
  const told = await until(() => bob.$eval('#error', (error) => /removed/.test(error.textContent)), 5_000);
  // After a lost connection the page would rejoin within a second.
  await new Promise((resolve) => {
    setTimeout(resolve, 2000);
  });
  const stays_away =
    (await fetch(`${options.url}/v1/rooms/${options.room}`).then((room) => room.json())).participants?.length === 0;
  return {
    joined_ms: [annJoined, bobJoined],
    both,
    listed,
    self_tile_error_px,
    overflow_px,
    stats,
    muted,
    unmuted,
    camera_off,
    camera_on,
    screens,
    left,
    lobby,
    told,
    stays_away,
    faults,
  };
}

/** A phone joins in portrait, is turned, and turned back: the received picture has the shape of its screen. */
export async function page_portrait({ chromium, options, keep }) {
  const browser = await chromium();
  const faults = [];
  const ann = await visit(browser, options, 'Ann', 'wide', faults);
  await joinByForm(ann, 'Ann', options.room);
  const bob = await visit(browser, options, 'Bob', 'phone', faults);
  await joinByForm(bob, 'Bob', options.room);
  /** What Bob receives once the video has the wanted shape and his preview is on his tile. */
  const look = async (upright) => {
    const shaped = await until(
      () =>
        bob.$eval('#mix', (mix, wanted) => mix.videoWidth > 0 && mix.videoHeight > mix.videoWidth === wanted, upright),
      10_000,
    );
    const settled = await until(async () => (await selfTileError(bob, await roomDocument(options), 'Bob')) < 2, 5000);
    const { canvas, view } = viewOf(await roomDocument(options), 'Bob');
    const page = await bob.evaluate(() => {
      const box = (selector) => document.querySelector(selector).getBoundingClientRect();
      const mix = document.querySelector('#mix');
      const { width, height } = box('#mix');
      const shown = Math.min(width / mix.videoWidth, height / mix.videoHeight) ** 2 * mix.videoWidth * mix.videoHeight;
      return {
        used: shown / (innerWidth * innerHeight),
        overflow: document.documentElement.scrollWidth - innerWidth,
        enlarged: box('#closeup').height > 0,
      };
    });
    return { shaped, settled, canvas, named: view === 'program', ...page };
  };
  const portrait = await look(true);
  await keep('page-portrait-390', await bob.screenshot());
  const phone = { width: 390, height: 844, deviceScaleFactor: 2, isMobile: true, hasTouch: true };
  await bob.setViewport({ ...phone, width: 844, height: 390 });
  const landscape = await look(false);
  await keep('page-landscape-844', await bob.screenshot());
  await bob.setViewport(phone);
  const again = await look(true);
  return { portrait, landscape, again, faults };
}

/** The page rejoins after its server was killed and another one started at the same address. */
export async function page_reconnects({ chromium, options, ask, keep }) {
  const browser = await chromium();
  const ann = await visit(browser, options, 'Ann', 'wide', []);
  await joinByForm(ann, 'Ann', options.room);
  await ann.evaluate(() => {
    window.looks = { banners: [], blank: 0 };
    setInterval(() => {
      const find = (selector) => document.querySelector(selector);
      const [last, mix, banner] = [document.querySelector('#last'), document.querySelector('#mix'), find('#banner')];
      if (last.hidden && !mix.videoWidth) window.looks.blank += 1;
      const { banners } = window.looks;
      if (!banner.hidden && banners.at(-1) !== banner.innerText) banners.push(banner.innerText);
    }, 30);
  });
  const from = performance.now();
  await ask('restart-server');
  const restarted_ms = Math.round(performance.now() - from);
  const again = await until(async () => {
    const response = await fetch(`${options.url}/v1/rooms/${options.room}`).catch(() => null);
    return response?.ok && (await response.json()).participants.some((p) => p.name === 'Ann');
  }, 40_000);
  const moves = await moving(ann, 15_000).then(
    () => true,
    () => false,
  );
  const back_ms = Math.round(performance.now() - from);
  await keep('page-reconnected-1440', await ann.screenshot());
  const calm = await until(() => ann.$eval('#last', (last) => last.hidden), 5000);
  const { banners, blank } = await ann.evaluate(() => window.looks);
  return { restarted_ms, again, moves, back_ms, banners, blank, calm };
}

/** The tier and limit on the page while the bandwidth drops and rises; the request `link KBPS` sets it. */
export async function page_tells_quality({ chromium, options, ask }) {
  const faults = [];
  const ann = await visit(await chromium(), options, 'Ann', 'wide', faults, { relay: options.relay });
  await joinByForm(ann, 'Ann', options.room);
  const quality = () =>
    ann.evaluate(() => {
      const names = [...document.querySelectorAll('#received dt')];
      return names.find((dt) => dt.textContent === 'Quality')?.nextElementSibling.textContent;
    });
  const said = [];
  /** @type {[number, RegExp][]} */
  const links = [
    [2000, /^high$/],
    [200, /^(low|slides): (slow connection|packet loss)$/],
    [2000, /^high$/],
  ];
  for (const [kbps, wanted] of links) {
    await ask(`link ${kbps}`);
    const from = performance.now();
    const in_time = await until(async () => wanted.test(await quality()), 20_000);
    said.push({ kbps, in_time, after_ms: Math.round(performance.now() - from), quality: await quality() });
  }
  await ann.click('#leave');
  return { said, faults };
}

/** A viewer opens the page: receives moving video, sends nothing, is listed, and leaves. */
export async function page_watch({ chromium, options, keep }) {
  const browser = await chromium();
  const faults = [];
  const ann = await visit(browser, options, 'Ann', 'wide', faults);
  await joinByForm(ann, 'Ann', options.room);
  const eve = await visit(browser, options, 'Eve', 'wide', faults, { query: '?watch' });
  const joined_ms = await joinByForm(eve, 'Eve', options.room);
  const role = (await roomDocument(options)).participants.find((p) => p.name === 'Eve')?.role;
  const from = performance.now();
  await moving(eve, 10_000);
  const moving_again_ms = Math.round(performance.now() - from);
  await keep('page-watch-1440', await eve.screenshot());
  await eve.click('#leave');
  const left = await until(async () => (await roomDocument(options)).participants.length === 1, 5_000);
  return { joined_ms, role, moving_again_ms, left, faults };
}

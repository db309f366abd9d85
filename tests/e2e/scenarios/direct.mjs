// Direct media between two participants, and the return to the mixer when a third joins.

import { joinByForm, moving, until, visit } from '../page.mjs';

/**
 * Joins with commingle.js like the web page, with video and a tone, which the second participant turns on only after
 * the join. Records all peer connections.
 */
const joining = async ({ room }, k) => {
  const Straight = globalThis.RTCPeerConnection;
  globalThis.pcs = [];
  globalThis.RTCPeerConnection = class extends Straight {
    constructor(...options) {
      super(...options);
      globalThis.pcs.push(this);
    }
  };
  const { join } = await import('/commingle.js');
  const { camera, microphone } = people;
  const stream = new MediaStream([camera(k, { width: 320, height: 180, fps: 15 }).track, (await microphone(k)).track]);
  const late = k === 1;
  const session = await join({
    room,
    name: `person ${k}`,
    stream: late ? new MediaStream() : stream,
    send: { audio: true, video: true },
  });
  if (late) {
    await people.until(() => session.room.participants.length > 0, 10_000);
    for (const track of stream.getTracks()) await session.replaceTrack(track);
  }
  const video = Object.assign(document.createElement('video'), {
    muted: true,
    autoplay: true,
    playsInline: true,
    srcObject: session.stream,
  });
  document.body.append(video);
  Object.assign(globalThis, { session, video });
};

/** The media packets sent and received over a connection so far. */
const packets = async (n) => {
  const stats = [...(await globalThis.pcs[n].getStats()).values()];
  const sum = (type, field) => stats.filter((s) => s.type === type).reduce((all, s) => all + s[field], 0);
  return { out: sum('outbound-rtp', 'packetsSent'), in: sum('inbound-rtp', 'packetsReceived') };
};

const during = async (page, n, ms) => {
  const before = await page.evaluate(packets, n);
  await new Promise((resolve) => {
    setTimeout(resolve, ms);
  });
  const after = await page.evaluate(packets, n);
  return { out: after.out - before.out, in: after.in - before.in };
};

const direct = (page, on) => page.evaluate((wanted) => people.until(() => session.direct === wanted, 15_000), on);

/** The nearest colour in the middle of each tile, or of the whole picture. */
const sees = (page, room) =>
  page.evaluate(async (name) => {
    const document = await people.roomDocument(name);
    const watcher = Object.assign(Object.create(people.Person.prototype), { video });
    const canvas = { width: 1280, height: 720 };
    const view = session.direct ? { canvas, tiles: [{ x: 0, y: 0, ...canvas }] } : people.program(document);
    return (await people.look(watcher, view, 400)).map((tile) => tile.seen).sort();
  }, room);

/** Waits until the picture shows these colours, at most five seconds. */
async function seesAll(page, room, wanted) {
  const end = Date.now() + 5_000;
  for (;;) {
    const seen = await sees(page, room);
    if (seen.join() === wanted.join() || Date.now() > end) return seen;
  }
}

/** The ms from a time until the mixed video moves in a page that was direct. */
const backInTheMix = (page, from) =>
  page.evaluate(async (from_) => {
    const frames = async () =>
      [...(await pcs[0].getStats()).values()].find((s) => s.type === 'inbound-rtp' && s.kind === 'video')
        ?.framesDecoded ?? 0;
    await people.until(() => !session.direct, 10_000, 10);
    const before = await frames();
    await people.until(async () => (await frames()) > before, 10_000, 10);
    return Date.now() - from_;
  }, from);

/** A recording of at least a second, started during direct media. */
async function recording(two, { url, room }) {
  const recordings = `${url}/v1/rooms/${room}/recordings`;
  const asked = Date.now();
  const begun = await (
    await fetch(recordings, { method: 'POST', headers: { 'content-type': 'application/json' }, body: '{}' })
  ).json();
  const told = async () => (await fetch(`${recordings}/${begun.id}`)).json();
  const back = await Promise.all(two.map((page) => backInTheMix(page, asked)));
  const lasts = await until(async () => (await told()).duration > 2, 10_000);
  const seen = await Promise.all(two.map((page) => sees(page, room)));
  await fetch(`${recordings}/${begun.id}`, { method: 'DELETE' });
  const over = await until(async () => (await told()).state === 'finished', 10_000);
  return { back_ms: back, lasts, seen, over, file: (await told()).files[0] };
}

export async function direct_for_two({ page: open, options }) {
  const [first, second, third] = await Promise.all([open(), open(), open()]);
  const two = [first, second];
  const both = (each) => Promise.all(two.map(each));
  await both((page, k) => page.evaluate(joining, options, k));
  const went = await both((page) => direct(page, true));
  await new Promise((resolve) => {
    setTimeout(resolve, 300);
  }); // queued packets are still sent
  const [atServer, between] = await Promise.all([during(first, 0, 1000), during(second, 1, 1000)]);
  const alone = await both((page) => sees(page, options.room));

  await third.evaluate(async ({ room }) => {
    globalThis.me = new people.Person({ k: 2, room });
    await me.join();
  }, options);
  const came = Date.now();
  const back = await both((page) => backInTheMix(page, came));
  const together = await both((page) => seesAll(page, options.room, [0, 1, 2]));
  const stays = await first.evaluate(() => session.state);

  await third.evaluate(() => me.leave());
  const again = (await both((page) => direct(page, true))).every(Boolean);
  const recorded = await recording(two, options);
  const afterwards = (await both((page) => direct(page, true))).every(Boolean);
  // The first participant sends nothing more, although the connection stays up.
  const broke = await first.evaluate(async () => {
    const at = Date.now();
    for (const sender of pcs.at(-1).getSenders()) await sender.replaceTrack(null);
    return at;
  });
  const mixed = await both((page) => backInTheMix(page, broke));
  const after = await both((page) => seesAll(page, options.room, [0, 1]));
  return {
    went,
    at_server: atServer,
    between,
    alone,
    back_ms: back,
    together,
    stays,
    again,
    recorded,
    afterwards,
    mixed_ms: mixed,
    after,
  };
}

/** The page in a direct call: the other participant, the own preview, a camera that is off, and a third participant. */
export async function page_direct({ chromium, options, keep }) {
  const browser = await chromium();
  const faults = [];
  const shot = async (page, name) => keep(name, await page.screenshot());
  const ann = await visit(browser, options, 'Ann', 'wide', faults);
  const bob = await visit(browser, options, 'Bob', 'phone', faults);
  for (const [page, name] of [
    [ann, 'Ann'],
    [bob, 'Bob'],
  ])
    await joinByForm(page, name, options.room);
  const shows = (page) =>
    page.evaluate(() => {
      const shown = (id) => document.getElementById(id).getClientRects().length > 0;
      return {
        direct: shown('direct'),
        other: shown('other') && document.querySelector('#other .tile-label').textContent,
        self: shown('self-tile'),
      };
    });
  const direct_ = async (page, on) => until(async () => (await shows(page)).direct === on, 10_000);
  const went = (await direct_(ann, true)) && (await direct_(bob, true));
  await moving(ann, 5_000);
  await new Promise((resolve) => {
    setTimeout(resolve, 1500);
  });
  const shown = [await shows(ann), await shows(bob)];
  const told = () => ann.$eval('#stats', (line) => line.textContent);
  // The line shows the previous second, which is empty if the path changed in it.
  await until(async () => / [1-9]\d* fps/.test(await told()), 5_000);
  const stats = await told();
  await shot(ann, 'page-direct-1440');
  await shot(bob, 'page-direct-390');
  const overflow_px = await bob.evaluate(() => document.documentElement.scrollWidth - innerWidth);

  await bob.click('#cam');
  const dark = await until(() => ann.$eval('#other', (other) => other.classList.contains('dark')), 3_000);
  await shot(ann, 'page-direct-camera-off-1440');
  await bob.click('#cam');
  const lit = await until(() => ann.$eval('#other', (other) => !other.classList.contains('dark')), 3_000);

  const eve = await visit(browser, options, 'Eve', 'wide', faults);
  await joinByForm(eve, 'Eve', options.room);
  await shot(ann, 'page-direct-third-1440');
  const mixed = (await direct_(ann, false)) && (await direct_(bob, false));
  await new Promise((resolve) => {
    setTimeout(resolve, 700);
  });
  await shot(ann, 'page-direct-mixed-1440');
  await shot(bob, 'page-direct-mixed-390');
  return { went, shown, stats, overflow_px, dark, lit, mixed, then: [await shows(ann), await shows(bob)], faults };
}

// Two people, directly: media from browser to browser, and back to the mixer when somebody comes.

/** Joins by commingle.js as the web page does, with a picture and a tone; notes every peer connection that is made. */
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
  const session = await join({ room, name: `person ${k}`, stream });
  const video = Object.assign(document.createElement('video'), { muted: true, autoplay: true, playsInline: true, srcObject: session.stream });
  document.body.append(video);
  Object.assign(globalThis, { session, video });
};

/** Packets of media that went each way over a connection so far. */
const packets = async (n) => {
  const stats = [...(await globalThis.pcs[n].getStats()).values()];
  const sum = (type, field) => stats.filter((s) => s.type === type).reduce((all, s) => all + s[field], 0);
  return { out: sum('outbound-rtp', 'packetsSent'), in: sum('inbound-rtp', 'packetsReceived') };
};

const during = async (page, n, ms) => {
  const before = await page.evaluate(packets, n);
  await new Promise((resolve) => { setTimeout(resolve, ms); });
  const after = await page.evaluate(packets, n);
  return { out: after.out - before.out, in: after.in - before.in };
};

const direct = (page, on) => page.evaluate((wanted) => people.until(() => session.direct === wanted, 15_000), on);

/** What the picture shows: the nearest colour in the middle of each tile, or of the whole. */
const sees = (page, room) => page.evaluate(async (name) => {
  const document = await people.roomDocument(name);
  const watcher = Object.assign(Object.create(people.Person.prototype), { video });
  const canvas = { width: 1280, height: 720 };
  const view = session.direct ? { canvas, tiles: [{ x: 0, y: 0, ...canvas }] } : people.program(document);
  return (await people.look(watcher, view, 600)).map((tile) => tile.seen).sort();
}, room);

export async function direct_for_two({ page: open, options }) {
  const [first, second] = [await open(), await open()];
  await first.evaluate(joining, options, 0);
  await second.evaluate(joining, options, 1);
  const went = [await direct(first, true), await direct(second, true)];
  await new Promise((resolve) => { setTimeout(resolve, 500); });
  const [atServer, between] = await Promise.all([during(first, 0, 2000), during(second, 1, 2000)]);
  const alone = [await sees(first, options.room), await sees(second, options.room)];

  const third = await open();
  await third.evaluate(async ({ room }) => {
    globalThis.me = new people.Person({ k: 2, room });
    await me.join();
  }, options);
  const came = Date.now();
  const back = await Promise.all([first, second].map((page) => page.evaluate(async (from) => {
    const frames = async () => [...(await pcs[0].getStats()).values()].find((s) => s.type === 'inbound-rtp' && s.kind === 'video')?.framesDecoded ?? 0;
    await people.until(() => !session.direct, 10_000, 10);
    const before = await frames();
    await people.until(async () => (await frames()) > before, 10_000, 10);
    return Date.now() - from;
  }, came)));
  await new Promise((resolve) => { setTimeout(resolve, 2000); });
  const together = [await sees(first, options.room), await sees(second, options.room)];
  const stays = await first.evaluate(() => session.state);

  await third.evaluate(() => me.leave());
  const again = await direct(first, true) && await direct(second, true);
  // The way between the two breaks without a word.
  await first.evaluate(() => pcs.at(-1).close());
  await second.evaluate(() => pcs.at(-1).dispatchEvent(new Event('x')));
  const mixed = await direct(second, false);
  const after = await during(second, 0, 1500);
  return { went, at_server: atServer, between, alone, back_ms: back, together, stays, again, mixed, after };
}

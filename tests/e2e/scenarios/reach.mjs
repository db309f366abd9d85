// One participant and one viewer in a page that reaches the server only through the emulated network.

/** They join and measure the video; with `moves` their network changes during the call, and they measure again. */
async function visit({ chromium, peoplePage, options, ask }, moves) {
  // A secure context: the page may use camera and microphone, and Chromium uses real addresses.
  const page = await peoplePage(await chromium([`--unsafely-treat-insecure-origin-as-secure=${options.url}`]));
  const joined = await page.evaluate(async (o) => {
    const { Person, look, roomDocument, program, until } = people;
    await navigator.mediaDevices.getUserMedia({ audio: true });
    const participant = await new Person({ k: 0, room: o.room }).join();
    const viewer = await new Person({
      k: 1,
      room: o.room,
      send: { video: false, audio: false },
      path: `/whep/${o.room}`,
    }).join();
    globalThis.visitors = { participant, viewer };
    const ready = await until(
      async () =>
        program(await roomDocument(o.room)).tiles.length === 1 &&
        Object.values(visitors).every((p) => p.frames.length > 5),
      20_000,
      100,
    );
    /** By name: the video and the selected candidate pair. */
    globalThis.looks = async () => {
      const view = program(await roomDocument(o.room));
      const each = async ([name, p]) => {
        const stats = await p.pc.getStats();
        const transport = [...stats.values()].find((s) => s.type === 'transport');
        const pair = stats.get(transport?.selectedCandidatePairId);
        const [local, remote] = [stats.get(pair?.localCandidateId), stats.get(pair?.remoteCandidateId)];
        return [
          name,
          {
            tiles: (await look(p, view)).map(({ seen, bars }) => ({ seen, bars })),
            protocol: local?.protocol,
            address: local?.candidateType,
            to: `${remote?.protocol} ${remote?.address} ${remote?.port}`,
            rtt_ms: people.round(1000 * pair?.currentRoundTripTime),
            state: p.pc.connectionState,
          },
        ];
      };
      return Object.fromEntries(await Promise.all(Object.entries(visitors).map(each)));
    };
    const first_frame_ms = Object.fromEntries(
      Object.entries(visitors).map(([name, p]) => [name, people.round(p.firstFrame)]),
    );
    return { ready, first_frame_ms, seen: await looks() };
  }, options);
  let moved = null;
  if (moves && joined.ready) {
    const from = await page.evaluate(() => performance.now());
    await ask('move');
    moved = await page.evaluate(
      async (o, from) => {
        await people.sleep(o.seconds * 1000);
        const now = performance.now();
        const each = Object.entries(visitors).map(([name, p]) => [name, p.freezes(from, now).max_gap_ms]);
        const { participants } = await people.roomDocument(o.room);
        return { longest_gap_ms: Object.fromEntries(each), seen: await looks(), participants: participants.length };
      },
      options,
      from,
    );
  }
  const left = await page.evaluate(async () => {
    const states = Object.fromEntries(Object.entries(visitors).map(([name, p]) => [name, p.states]));
    for (const p of Object.values(visitors)) await p.leave();
    return { states, left: Object.values(visitors).map((p) => p.leftWith) };
  });
  return { ...joined, moved, ...left };
}

export const reach = (stage) => visit(stage, false);
export const move = (stage) => visit(stage, true);

/** In Firefox: a participant without restrictions, and one that uses only a relay by TCP. */
export async function reach_firefox({ firefox, peoplePage, options }) {
  const page = await peoplePage(await firefox());
  return page.evaluate(async (o) => {
    const { Person, look, roomDocument, program, until } = people;
    const { iceServersOf } = await import('/wire.js');
    const found = await new Person({ k: 0, room: o.room }).join();
    const iceServers = iceServersOf(found.links).filter(({ urls }) => /^turn:.*=tcp/.test(urls));
    const relayed = await new Person({
      k: 1,
      room: o.room,
      connection: { iceServers, iceTransportPolicy: 'relay' },
    }).join();
    const all = { found, relayed };
    const ready = await until(
      async () =>
        program(await roomDocument(o.room)).tiles.length === 2 && Object.values(all).every((p) => p.frames.length > 5),
      20_000,
      100,
    );
    const view = program(await roomDocument(o.room));
    const owner = Object.fromEntries(Object.values(all).map((p) => [p.id, p.k]));
    const each = Object.entries(all).map(async ([name, p]) => [
      name,
      {
        candidate: await p.localCandidate(),
        first_frame_ms: people.round(p.firstFrame),
        tiles: (await look(p, view)).map(({ participant, seen, bars }) => ({ owner: owner[participant], seen, bars })),
        states: p.states,
      },
    ]);
    const seen = Object.fromEntries(await Promise.all(each));
    for (const p of Object.values(all)) await p.leave();
    return { ready, servers: iceServers.map(({ urls }) => urls), seen };
  }, options);
}

/**
 * A participant with the client module that changes networks. Measures for each change the ms without a new frame, and
 * without movement of the own tile.
 */
export async function roam({ chromium, peoplePage, options, ask }) {
  const page = await peoplePage(await chromium([`--unsafely-treat-insecure-origin-as-secure=${options.url}`]));
  const joined = await page.evaluate(async (o) => {
    const { Person, camera, microphone, program, until } = people;
    await navigator.mediaDevices.getUserMedia({ audio: true });
    const peers = [];
    globalThis.RTCPeerConnection = class extends RTCPeerConnection {
      constructor(...given) {
        super(...given);
        peers.push(this);
      }
    };
    const { join } = await import('/commingle.js');
    const tracks = [camera(0, { width: 320, height: 180, fps: 15 }), await microphone(0)].map(({ track }) => track);
    const log = [];
    const note = (what) => log.push(`${Math.round(performance.now())} ${what}`);
    const session = await join({ room: o.room, name: 'Ann', stream: new MediaStream(tracks) });
    session.addEventListener('state', (event) => note(/** @type {CustomEvent} */ (event).detail.state));
    session.addEventListener('levels', () => {
      me.toldAt = performance.now();
    });
    peers[0].addEventListener('iceconnectionstatechange', () => note(`ice ${peers[0].iceConnectionState}`));
    for (const what of ['online', 'offline']) addEventListener(what, () => note(what));
    const video = Object.assign(document.createElement('video'), {
      muted: true,
      autoplay: true,
      srcObject: session.stream,
    });
    document.body.append(video);
    const me = Object.assign(Object.create(Person.prototype), { video, stream: session.stream, frames: [] });
    const each = (now, frame) => {
      me.frames.push({ shown: frame.presentationTime, received: frame.receiveTime ?? frame.presentationTime });
      video.requestVideoFrameCallback(each);
    };
    video.requestVideoFrameCallback(each);
    const ready = await until(() => me.frames.length > 15 && session.view()?.tiles.length === 1, 20_000);
    if (ready) me.watchTile(session.view().tiles[0], program(session.room).canvas);
    const first = session.location;
    globalThis.roamer = {
      /** Waits until video has returned for 1.5 seconds; resolves with the length of the gap. */
      after: async (from) => {
        const lately = (times) => times.filter((t) => t > performance.now() - 1500).length > 15;
        const again = await until(() => performance.now() > from + 3500 && lately(me.moved), 20_000);
        const now = performance.now();
        const toldAgain = await until(() => me.toldAt > now, 3000);
        return {
          again,
          told_again: toldAgain,
          picture_gap_ms: me.freezes(from, now).max_gap_ms,
          tile_gap_ms: me.stillness(from, now),
          same_session: session.location === first,
          connections: peers.length,
          candidate: await people.selectedCandidate(peers.at(-1)),
          log: log.splice(0).map((line) => line.replace(/^\d+/, (at) => Math.round(at - from))),
        };
      },
      leave: () => session.leave(),
    };
    await people.sleep(1000);
    return { ready, candidate: await people.selectedCandidate(peers[0]) };
  }, options);
  const changes = {};
  for (const change of joined.ready ? ['lose', 'switch'] : []) {
    const from = await page.evaluate(() => performance.now());
    await ask(change);
    changes[change] = await page.evaluate((since) => roamer.after(since), from);
  }
  await page.evaluate(() => roamer.leave());
  return { ...joined, ...changes };
}

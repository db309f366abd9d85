// Calls without faults: which video and audio each participant receives.

/** Participants in one room, each with a colour and a tone; `codecs` has their video codecs in turn. */
export async function grid({ page: open, options, keep }) {
  const page = await open();
  const { picture, ...measured } = await page.evaluate(async (o) => {
    const { Person, sleep, look, listen, roomDocument, program, until } = people;
    const all = [];
    for (let k = 0; k < o.people; k += 1) {
      const codec = o.codecs.length ? o.codecs[k % o.codecs.length] : null;
      all.push(await new Person({ k, room: o.room, codec }).join());
    }
    const complete = async () => {
      const document = await roomDocument(o.room);
      return program(document).tiles.length === all.length && all.every((p) => p.frames.length > 5);
    };
    const ready = await until(complete, 15_000, 200);
    await sleep(1500);

    const from = performance.now();
    await sleep(o.seconds * 1000);
    const to = performance.now();
    const freezes = all.map((p) => p.freezes(from, to));

    const document = await roomDocument(o.room);
    const view = program(document);
    const owner = Object.fromEntries(all.map((p) => [p.id, p.k]));
    const seen = await Promise.all(all.map((p) => look(p, view)));
    const heard = await Promise.all(
      all.map((p) =>
        listen(p, {
          expected: all.map((other) => other.k).filter((k) => k !== p.k),
          strangers: [p.k],
        }),
      ),
    );
    const each = await Promise.all(
      all.map(async (p, i) => ({
        k: p.k,
        id: p.id,
        codec: p.codec,
        tracks: p.tracks,
        lines: p.lines.length,
        answered_ms: people.round(p.answeredAfter),
        first_frame_ms: people.round(p.firstFrame),
        tiles: seen[i].length,
        wrong_tiles: seen[i].filter((t) => t.seen !== owner[t.participant] || t.away > 14),
        still_tiles: seen[i].filter((t) => t.bars < 4),
        furthest_colour: Math.max(...seen[i].map((t) => t.away)),
        sound: heard[i],
        freezes: freezes[i],
        stats: await p.stats(),
        states: p.states,
      })),
    );
    const easel = Object.assign(globalThis.document.createElement('canvas'), {
      width: all[0].video.videoWidth,
      height: all[0].video.videoHeight,
    });
    easel.getContext('2d').drawImage(all[0].video, 0, 0);
    const left = [];
    for (const p of all) {
      await p.leave();
      left.push(p.leftWith);
    }
    return {
      ready,
      participants: document.participants.length,
      streams: document.streams,
      people: each,
      left,
      picture: easel.toDataURL('image/png'),
    };
  }, options);
  await keep(`grid-${options.people}${options.codecs.length ? '-codecs' : ''}`, picture);
  return measured;
}

/**
 * A simulcast sender, a sender of VP9 with spatial layers and a viewer: first in a grid of two, then of nine. Also the
 * `levels` events.
 */
export async function simulcast({ page: open, options }) {
  const page = await open();
  return page.evaluate(async (o) => {
    const { Person, sleep, look, roomDocument, program, until } = people;
    // 320x180, 640x360 and 960x540.
    const encodings = ['q', 'h', 'f'].map((rid, i) => ({ rid, scaleResolutionDownBy: [3, 1.5, 1][i] }));
    const picture = { width: 960, height: 540, fps: 10 };
    const sender = await new Person({ k: 0, room: o.room, encodings, picture }).join();
    const viewer = await new Person({
      k: 1,
      room: o.room,
      send: { video: false, audio: false },
      path: `/whep/${o.room}`,
    }).join();
    const levels = [];
    const wanted = [];
    const events = (query) => {
      const socket = new WebSocket(`${location.origin.replace('http', 'ws')}/v1/rooms/${o.room}/events${query}`);
      socket.onmessage = ({ data }) => {
        const event = JSON.parse(data);
        if (event.type === 'levels' && !query) levels.push(event);
        if (event.type === 'wanted') wanted.push(event);
      };
      return socket;
    };
    const sockets = [events(''), events(`?session=${sender.location.split('/').pop()}`)];
    const source = async ({ id } = sender) => {
      const { participants } = await roomDocument(o.room);
      return participants.find((p) => p.id === id)?.sends.find((s) => s.kind === 'camera');
    };
    const decoded = (person, is) => until(async () => is((await source(person))?.size?.width), 30_000, 200);
    const lines = ({ sdp }) => sdp.split(/\r?\n/).filter((line) => /^a=(rid|simulcast)/.test(line));
    const offered = lines(sender.pc.localDescription);
    const answered = lines(sender.pc.remoteDescription);
    const measure = async (ready, settling) => {
      await sleep(settling);
      const from = await sender.pc.getStats();
      await sleep(3000);
      const to = await sender.pc.getStats();
      const layers = [...to.values()].filter((s) => s.type === 'outbound-rtp' && s.kind === 'video');
      const document = await roomDocument(o.room);
      return {
        ready,
        source: await source(),
        seen: await look(viewer, program(document)),
        layers: layers.map(({ id, rid, bytesSent }) => ({
          rid,
          kbps: Math.round(((bytesSent - from.get(id).bytesSent) * 8) / 3000),
        })),
      };
    };
    const largest = await decoded(sender, (width) => width === 960);
    const whole = largest && (await until(() => viewer.frames.length > 5, 10_000));
    levels.length = 0;
    const alone = await measure(whole, 2000);
    const told = [...levels];

    const scalable = [{ scalabilityMode: 'L3T3_KEY', codec: codecNamed('VP9') }];
    const layered = await new Person({ k: 2, room: o.room, codec: 'VP9', encodings: scalable, picture }).join();
    const wholeLayer = await decoded(layered, (width) => width > 600);
    const others = [];
    for (const k of [1, 3, 4, 5, 6, 7, 8])
      others.push(
        await new Person({ k, room: o.room, send: { video: false }, receive: { video: false, audio: false } }).join(),
      );
    const small = await decoded(sender, (width) => width === 320);
    const smallLayer = await decoded(layered, (width) => width < 500);
    const nine = await measure(small, 6000); // a lower limit comes after four seconds
    const mode = [...(await layered.pc.getStats()).values()].find(
      (s) => s.type === 'outbound-rtp' && s.kind === 'video',
    )?.scalabilityMode;
    sockets.forEach((socket) => socket.close());
    const measured = {
      offered,
      answered,
      alone,
      nine,
      layered: { mode, whole: wholeLayer, small: smallLayer, source: await source(layered), id: layered.id },
      ids: { sender: sender.id },
      wanted,
      levels: { events: told.length, versions: told.filter((e) => 'version' in e).length, last: told.at(-1) },
    };
    for (const person of [sender, viewer, layered, ...others]) await person.leave();
    return measured;

    function codecNamed(name) {
      return RTCRtpReceiver.getCapabilities('video').codecs.find((c) => c.mimeType === `video/${name}`);
    }
  }, options);
}

/**
 * Participants with other combinations of directions in one room; then a camera off and on, and mutes by the server.
 */
export async function kinds({ page: open, options }) {
  const page = await open();
  return page.evaluate(async (o) => {
    const { Person, sleep, look, listen, roomDocument, program, until } = people;
    const { room } = o;
    const full = await new Person({ k: 0, room }).join();
    const audioOnly = await new Person({ k: 1, room, send: { video: false } }).join();
    const videoOnly = await new Person({ k: 2, room, send: { audio: false } }).join();
    const silent = new Person({ k: 3, room });
    await silent.join();
    silent.microphone.track.enabled = false;
    const viewer = await new Person({ k: 4, room, send: { video: false, audio: false }, path: `/whep/${room}` }).join();
    const publisher = await new Person({
      k: 5,
      room,
      receive: { video: false, audio: false },
      path: `/whip/${room}`,
    }).join();
    const soundless = await new Person({ k: 6, room, receive: { audio: false } }).join();
    const all = { full, audioOnly, videoOnly, silent, viewer, publisher, soundless };
    const receivers = Object.entries(all).filter(([name]) => name !== 'publisher');
    const ready = await until(
      async () => {
        const tiles = program(await roomDocument(room)).tiles;
        return tiles.length >= 6 && receivers.every(([, p]) => p.frames.length > 5);
      },
      15_000,
      200,
    );
    await sleep(2000);

    const ids = Object.fromEntries(Object.entries(all).map(([name, p]) => [p.id, name]));
    const view = async () => program(await roomDocument(room));
    const tilesOf = async (person) => {
      const seen = await look(person, await view());
      return Object.fromEntries(
        seen.map((t) => [ids[t.participant] ?? t.participant, { seen: t.seen, away: t.away, bars: t.bars }]),
      );
    };
    const sounding = [0, 1, 5, 6];
    const hear = (p) =>
      listen(p, {
        expected: sounding.filter((k) => k !== p.k),
        strangers: [0, 1, 2, 3, 4, 5, 6].filter((k) => !sounding.includes(k) || k === p.k),
      });
    const tracks = Object.fromEntries(Object.entries(all).map(([name, p]) => [name, p.tracks]));
    const seen = { full: await tilesOf(full), viewer: await tilesOf(viewer) };
    const ears = receivers.filter(([, p]) => p !== soundless);
    const sound = Object.fromEntries(await Promise.all(ears.map(async ([name, p]) => [name, await hear(p)])));

    // The current content of a tile.
    const tile = async (watcher, whose) => {
      const now = await view();
      const one = now.tiles.find((t) => t.participant === whose.id);
      const image = watcher.pixels();
      return one && image ? people.nearest(people.tileColour(image, one, now.canvas)) : { k: null, away: null };
    };
    const shows = (whose) => async () => {
      const { k, away } = await tile(viewer, whose);
      return k === whose.k && away < 14;
    };
    const hides = (whose) => async () => !(await shows(whose)());
    const timed = async (test, ms) => {
      const from = performance.now();
      return (await until(test, ms, 40)) ? people.round(performance.now() - from) : null;
    };
    await full.cameraOff();
    const camera_off_ms = await timed(hides(full), 10_000);
    await full.cameraOn();
    const camera_on_ms = await timed(shows(full), 10_000);

    const patch = (person, change) =>
      fetch(`/v1/rooms/${room}/participants/${person.id}`, {
        method: 'PATCH',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify(change),
      }).then((response) => response.status);
    const video_muted = {
      status: await patch(publisher, { video_muted: true }),
      hidden_ms: await timed(hides(publisher), 5_000),
    };
    video_muted.shown_ms =
      (await patch(publisher, { video_muted: false })) === 200 ? await timed(shows(publisher), 5_000) : null;
    const audio_muted = { status: await patch(audioOnly, { audio_muted: true }) };
    await sleep(1500);
    audio_muted.sound = await listen(viewer, { expected: [0, 5, 6], strangers: [1] });

    for (const p of Object.values(all)) await p.leave();
    return { ready, tracks, seen, sound, camera_off_ms, camera_on_ms, video_muted, audio_muted };
  }, options);
}

/** Two rooms at the same time. */
export async function apart({ page: open, options }) {
  const page = await open();
  return page.evaluate(async (o) => {
    const { Person, sleep, look, listen, roomDocument, program, until } = people;
    const rooms = [`${o.room}-a`, `${o.room}-b`];
    const all = [];
    for (let k = 0; k < 4; k += 1) all.push(await new Person({ k, room: rooms[k >> 1] }).join());
    const ready = await until(
      async () => {
        const documents = await Promise.all(rooms.map(roomDocument));
        return documents.every((d) => program(d).tiles.length === 2) && all.every((p) => p.frames.length > 5);
      },
      15_000,
      200,
    );
    await sleep(2000);
    const each = await Promise.all(
      all.map(async (p) => {
        const mine = all.filter((other) => other.room === p.room);
        const document = await roomDocument(p.room);
        return {
          k: p.k,
          id: p.id,
          roommates: mine.map((other) => other.k),
          seen: (await look(p, program(document), 800)).map((t) => t.seen),
          participants: document.participants.length,
          sound: await listen(p, {
            expected: mine.filter((other) => other !== p).map((other) => other.k),
            strangers: [0, 1, 2, 3].filter((k) => k === p.k || !mine.some((other) => other.k === k)),
          }),
        };
      }),
    );
    for (const p of all) await p.leave();
    return { ready, people: each };
  }, options);
}

/** Participants of all kinds join and leave in an order derived from `seed`; then the room shows the remaining ones. */
export async function churn({ page: open, options }) {
  const page = await open();
  return page.evaluate(async (o) => {
    const { Person, sleep, look, listen, roomDocument, program, until } = people;
    let state = o.seed >>> 0;
    const random = () => {
      state = (state + 0x6d2b79f5) >>> 0;
      let t = Math.imul(state ^ (state >>> 15), state | 1);
      t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
      return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
    };
    const pick = (list) => list[Math.floor(random() * list.length)];
    const { room } = o;
    let present = [];
    const counts = { joined: 0, left: 0, hung_up: 0, most: 0 };
    const wrong_tracks = [];
    const join = async () => {
      const free = [...Array(7).keys()].filter((k) => !present.some((p) => p.k === k));
      if (!free.length) return;
      const send = { video: random() < 0.85, audio: random() < 0.85 };
      const p = new Person({ k: pick(free), room, send, codec: pick([null, 'VP8', 'H264']) });
      present.push(await p.join());
      counts.joined += 1;
      counts.most = Math.max(counts.most, present.length);
    };
    const go = async (how) => {
      const p = pick(present);
      present = present.filter((other) => other !== p);
      if (p.tracks.video > 1 || p.tracks.audio > 1) wrong_tracks.push({ id: p.id, ...p.tracks });
      if (how === 'leave') {
        await p.leave();
        counts.left += 1;
      } else {
        p.hangUp();
        counts.hung_up += 1;
      }
    };
    const end = performance.now() + o.seconds * 1000;
    while (performance.now() < end) {
      const die = random();
      if (present.length < 2 || (die < 0.5 && present.length < 6)) await join();
      else await go(die < 0.75 ? 'leave' : 'hang up');
      await sleep(100 + random() * 1200);
    }
    while (present.length > 4) await go('leave');
    while (present.length < 3) await join();

    const ids = () =>
      present
        .map((p) => p.id)
        .sort()
        .join();
    const tiled = () =>
      present
        .filter((p) => p.send.video || p.send.audio)
        .map((p) => p.id)
        .sort()
        .join();
    /** @type {any} */
    let document = null;
    const from = performance.now();
    const settled = await until(
      async () => {
        document = await roomDocument(room);
        return (
          document.participants
            .map((p) => p.id)
            .sort()
            .join() === ids() &&
          program(document)
            .tiles.map((t) => t.participant)
            .sort()
            .join() === tiled() &&
          present.every((p) => p.frames.length > 5)
        );
      },
      40_000,
      300,
    );
    const settled_ms = people.round(performance.now() - from);
    await sleep(2500);
    const owner = Object.fromEntries(present.map((p) => [p.id, p]));
    const each = await Promise.all(
      present.map(async (p) => {
        const seen = await look(p, program(document), 1000);
        return {
          k: p.k,
          id: p.id,
          codec: p.codec,
          tracks: p.tracks,
          wrong_tiles: seen.filter((t) => {
            const shown = t.seen === owner[t.participant]?.k && t.away < 14 && t.bars >= 3;
            return owner[t.participant]?.send.video ? !shown : shown;
          }),
          sound: await listen(p, {
            expected: present.filter((other) => other !== p && other.send.audio).map((other) => other.k),
            strangers: [...Array(7).keys()].filter(
              (k) => k === p.k || !present.some((other) => other.k === k && other.send.audio),
            ),
          }),
          states: p.states,
        };
      }),
    );
    const sizes = { participants: document.participants.map((p) => p.id), present: present.map((p) => p.id) };
    for (const p of present) await p.leave();
    return { counts, settled, settled_ms, ...sizes, wrong_tracks, people: each };
  }, options);
}

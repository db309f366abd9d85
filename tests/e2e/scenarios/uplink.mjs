// The bitrate of senders follows the size of their tiles.

/** A sender with detailed video in a room of two, then of nine, then of two again. */
export async function uplink({ page: open, options }) {
  const page = await open();
  return page.evaluate(async (o) => {
    const { Person, sleep, roomDocument, program, until, round } = people;
    const { room } = o;
    // Noise that changes in every frame uses any bitrate.
    const sender = await new Person({ k: 0, room, picture: { width: 640, height: 360, fps: 15, busy: true } }).join();
    const all = [sender];
    const small = { width: 160, height: 90, fps: 5 };
    const join = async (n) => {
      while (all.length < n) {
        all.push(
          await new Person({ k: all.length, room, picture: small, receive: { video: all.length === 1 } }).join(),
        );
      }
    };
    const shown = (n) => until(async () => program(await roomDocument(room)).tiles.length === n, 15_000, 200);
    const sent = async () => {
      const stats = [...(await sender.pc.getStats()).values()];
      const outbound = (kind) => stats.find((s) => s.type === 'outbound-rtp' && s.kind === kind);
      const pair = stats.find((s) => s.type === 'candidate-pair' && s.availableOutgoingBitrate);
      return {
        at: performance.now(),
        video: outbound('video').bytesSent,
        audio: outbound('audio').packetsSent,
        target: outbound('video').targetBitrate,
        available: pair.availableOutgoingBitrate,
      };
    };
    /** The time until the target is within `kbps`, then the bitrate of some seconds. */
    const settle = async (people, [from, to], within) => {
      const began = performance.now();
      const settled = await until(
        async () => {
          const kbps = (await sent()).target / 1000;
          return kbps >= from && kbps <= to;
        },
        within,
        100,
      );
      const took = performance.now() - began;
      await sleep(1000);
      const before = await sent();
      await sleep(5000);
      const after = await sent();
      const tile = program(await roomDocument(room)).tiles.find((t) => t.participant === sender.id);
      return {
        people,
        settled,
        took_ms: round(took, 0),
        tile: [tile.width, tile.height],
        target_kbps: round(after.target / 1000),
        available_kbps: round(after.available / 1000),
        sent_kbps: round(((after.video - before.video) * 8) / (after.at - before.at)),
        audio_packets: round(((after.audio - before.audio) * 1000) / (after.at - before.at)),
      };
    };
    await join(2);
    const ready = await shown(2);
    const phases = [await settle(2, [900, 1550], 30_000)];
    await join(9);
    const full = await shown(9);
    phases.push(await settle(9, [120, 300], 10_000));
    for (const p of all.splice(2)) await p.leave();
    phases.push(await settle(2, [900, 1550], 30_000));
    for (const p of all) await p.leave();
    return { ready, full, phases };
  }, options);
}

/** The client module with detailed video: alone, in a room of 25, and alone again. */
export async function large_room({ page: open, options }) {
  const page = await open();
  return page.evaluate(async (o) => {
    const { Person, camera, microphone, sleep, roomDocument, program, until } = people;
    const { join } = await import('/commingle.js');
    const made = [];
    const Native = RTCPeerConnection;
    globalThis.RTCPeerConnection = class extends Native {
      constructor(configuration) {
        super(configuration);
        made.push(this);
      }
    };
    const picture = { width: 1280, height: 720, fps: 15, busy: true };
    const tracks = [camera(0, picture).track, (await microphone(0)).track];
    const session = await join({ room: o.room, name: 'sender', stream: new MediaStream(tracks) });
    const video = document.body.appendChild(Object.assign(document.createElement('video'), { muted: true }));
    video.srcObject = session.stream;
    await video.play();
    const source = () => session.self?.sends?.find(({ kind }) => kind === 'camera');
    const sent = async () => {
      const all = [...(await made[0].getStats()).values()].filter((s) => s.type === 'outbound-rtp');
      return { at: performance.now(), all };
    };
    const measure = async (width) => {
      const decoded = await until(() => source()?.encoding && width(source().size?.width ?? 0), 30_000, 100);
      await sleep(9000);
      const frames = video.getVideoPlaybackQuality().totalVideoFrames;
      const [before, , after] = [await sent(), await sleep(5000), await sent()];
      const kbps = (one) => {
        const old = before.all.find(({ id }) => id === one.id);
        return Math.round(((one.bytesSent - (old?.bytesSent ?? 0)) * 8) / (after.at - before.at));
      };
      const encodings = after.all.filter(({ kind }) => kind === 'video');
      return {
        decoded,
        encoding: source()?.encoding,
        size: source()?.size,
        wanted: source()?.wanted,
        active: encodings.filter((one) => kbps(one) > 0).map(({ rid }) => rid),
        frame: encodings.filter((one) => kbps(one) > 0).map((one) => [one.frameWidth, one.frameHeight]),
        qp: encodings.filter((one) => kbps(one) > 0).map((one) => Math.round(one.qpSum / one.framesEncoded)),
        kbps: after.all.reduce((sum, one) => sum + kbps(one), 0),
        seen: video.getVideoPlaybackQuality().totalVideoFrames - frames,
      };
    };
    const alone = await measure((width) => width > 320);
    const others = [];
    for (let n = 1; n < 25; n += 1) {
      const receive = { video: false, audio: false };
      others.push(await new Person({ k: n % 9, room: o.room, send: { video: false }, receive }).join());
    }
    const full = await until(async () => program(await roomDocument(o.room)).tiles.length === 25, 20_000, 200);
    const crowd = await measure((width) => width > 0 && width < 320);
    for (const person of others) await person.leave();
    const again = await measure((width) => width > 320);
    await session.leave();
    return { alone, full, crowd, again };
  }, options);
}

/** A sender with a thin uplink, and a receiver: the video and audio that arrive. */
export async function thin_uplink(stage) {
  const { options } = stage;
  const [thin, clean] = await Promise.all(
    [options.relay, ''].map(async (relay) => stage.peoplePage(await stage.chromium(), relay)),
  );
  const join = (page, k, busy) =>
    page.evaluate(
      async (o, k_, busy_) => {
        const picture = busy_ ? { width: 640, height: 360, fps: 15, busy: true } : { width: 160, height: 90, fps: 5 };
        globalThis.me = await new people.Person({ k: k_, room: o.room, picture }).join();
      },
      options,
      k,
      busy,
    );
  await join(thin, 0, true);
  await join(clean, 1, false);
  const ready = await clean.evaluate(
    (o) =>
      people.until(
        async () =>
          people.program(await people.roomDocument(o.room)).tiles.length === 2 && globalThis.me.frames.length > 30,
        20_000,
        200,
      ),
    options,
  );
  await clean.evaluate(async () => {
    await globalThis.me.watchGaps();
    await people.sleep(15_000);
  });
  const sent = () =>
    thin.evaluate(async () => {
      const stats = [...(await globalThis.me.pc.getStats()).values()];
      const of = (type, kind) => stats.find((s) => s.type === type && s.kind === kind);
      const [video, audio] = [of('outbound-rtp', 'video'), of('outbound-rtp', 'audio')];
      return {
        at: performance.now(),
        video: video.bytesSent,
        frames: video.framesEncoded,
        audio: audio.packetsSent,
        audio_lost: of('remote-inbound-rtp', 'audio')?.packetsLost ?? null,
        target_kbps: people.round(video.targetBitrate / 1000),
        available_kbps: people.round(
          stats.find((s) => s.type === 'candidate-pair' && s.availableOutgoingBitrate).availableOutgoingBitrate / 1000,
        ),
      };
    });
  const before = await sent();
  const heard = await clean.evaluate(async (seconds) => {
    const { me } = globalThis;
    const from = performance.now();
    const hears = (await people.listen(me, { expected: [0], strangers: [1] })).weakest_db;
    await people.sleep(seconds * 1000 - 8000);
    const to = performance.now();
    return {
      hears_db: hears,
      gap_ms: Math.max(0, ...me.gaps.filter((g) => g.at >= from && g.at < to).map((g) => g.ms)),
    };
  }, options.seconds);
  const after = await sent();
  const seconds = (after.at - before.at) / 1000;
  await thin.evaluate(() => globalThis.me.leave());
  await clean.evaluate(() => globalThis.me.leave());
  const { audio_lost, target_kbps, available_kbps } = after;
  return {
    ready,
    ...heard,
    target_kbps,
    available_kbps,
    video_kbps: Math.round(((after.video - before.video) * 8) / seconds / 1000),
    fps: Math.round((after.frames - before.frames) / seconds),
    audio_packets: Math.round((after.audio - before.audio) / seconds),
    audio_lost: audio_lost === null || before.audio_lost === null ? null : audio_lost - before.audio_lost,
  };
}

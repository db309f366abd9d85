// Calls over TURN only.

const FLAGS = ['--ignore-certificate-errors'];

/** Participants in one room, each with one of `transports` (udp, tcp, tls). */
export async function relayed_call({ chromium, peoplePage, options, keep }) {
  const browser = await chromium(FLAGS);
  const page = await peoplePage(browser);
  const { picture, ...measured } = await page.evaluate(async (o) => {
    const { Person, sleep, look, roomDocument, program, until } = people;
    const { iceServersOf } = await import('/wire.js');
    // The first session stays, because its TURN credential lives as long as the session.
    const told = await new Person({ room: `${o.room}-probe`, send: { video: false, audio: false } }).join();
    const servers = iceServersOf(told.links);
    const wanted = { udp: /^turn:.*=udp/, tcp: /^turn:.*=tcp/, tls: /^turns:/ };
    const all = [];
    for (let k = 0; k < o.transports.length; k += 1) {
      const iceServers = servers.filter(({ urls }) => wanted[o.transports[k]].test(urls));
      all.push(await new Person({ k, room: o.room, connection: { iceServers, iceTransportPolicy: 'relay' } }).join());
    }
    const complete = async () =>
      program(await roomDocument(o.room)).tiles.length === all.length && all.every((p) => p.frames.length > 5);
    const ready = await until(complete, 15_000, 200);
    const from = performance.now();
    await sleep(o.seconds * 1000);
    const to = performance.now();

    const document = await roomDocument(o.room);
    const view = program(document);
    const owner = Object.fromEntries(all.map((p) => [p.id, p.k]));
    const seen = await Promise.all(all.map((p) => look(p, view)));
    const each = await Promise.all(
      all.map(async (p, i) => ({
        transport: o.transports[i],
        candidate: await p.localCandidate(),
        first_frame_ms: people.round(p.firstFrame),
        tiles: seen[i].length,
        wrong_tiles: seen[i].filter((t) => t.seen !== owner[t.participant] || t.away > 14),
        still_tiles: seen[i].filter((t) => t.bars < 4),
        freezes: p.freezes(from, to),
      })),
    );
    const easel = Object.assign(globalThis.document.createElement('canvas'), {
      width: all[0].video.videoWidth,
      height: all[0].video.videoHeight,
    });
    easel.getContext('2d').drawImage(all[0].video, 0, 0);
    for (const p of [...all, told]) await p.leave();
    return { ready, servers: servers.map(({ urls }) => urls), people: each, picture: easel.toDataURL('image/png') };
  }, options);
  await keep('relayed-call', picture);
  return measured;
}

/** A participant with the client module; `policy` is its iceTransportPolicy. */
export async function relayed_module({ chromium, peoplePage, options }) {
  const page = await peoplePage(await chromium(FLAGS));
  return page.evaluate(async (o) => {
    const peers = [];
    globalThis.RTCPeerConnection = class extends RTCPeerConnection {
      constructor(...given) {
        super(...given);
        peers.push(this);
      }
    };
    const { join } = await import('/commingle.js');
    const stream = await navigator.mediaDevices.getUserMedia({ audio: true, video: true });
    const from = performance.now();
    const session = await join({ room: o.room, name: 'Ann', stream, iceTransportPolicy: o.policy });
    const video = Object.assign(document.createElement('video'), {
      muted: true,
      autoplay: true,
      srcObject: session.stream,
    });
    document.body.append(video);
    const moving = await people.until(() => video.getVideoPlaybackQuality().totalVideoFrames > 5, 15_000, 50);
    const first_frame_ms = people.round(performance.now() - from);
    const candidate = await people.selectedCandidate(peers.at(-1));
    await session.leave();
    return { secure: isSecureContext, moving, first_frame_ms, candidate, connections: peers.length };
  }, options);
}

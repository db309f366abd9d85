// One participant and one viewer in a page that reaches the server only by the network around it.

/** They join and look at the room; with `moves` their network changes in mid-call, and they look again. */
async function visit({ chromium, peoplePage, options, ask }, moves) {
  // As from https: then the page may use camera and microphone, and Chromium tells its real addresses.
  const page = await peoplePage(await chromium([`--unsafely-treat-insecure-origin-as-secure=${options.url}`]));
  const joined = await page.evaluate(async (o) => {
    const { Person, look, roomDocument, program, until } = people;
    await navigator.mediaDevices.getUserMedia({ audio: true });
    const participant = await new Person({ k: 0, room: o.room }).join();
    const viewer = await new Person({ k: 1, room: o.room, send: { video: false, audio: false }, path: `/whep/${o.room}` }).join();
    globalThis.visitors = { participant, viewer };
    const ready = await until(async () => (
      program(await roomDocument(o.room)).tiles.length === 1 && Object.values(visitors).every((p) => p.frames.length > 5)
    ), 20_000, 100);
    /** What each has, by name: pictures, and the way they take. */
    globalThis.looks = async () => {
      const view = program(await roomDocument(o.room));
      const each = async ([name, p]) => {
        const stats = await p.pc.getStats();
        const transport = [...stats.values()].find((s) => s.type === 'transport');
        const pair = stats.get(transport?.selectedCandidatePairId);
        const [local, remote] = [stats.get(pair?.localCandidateId), stats.get(pair?.remoteCandidateId)];
        return [name, {
          tiles: (await look(p, view)).map(({ seen, bars }) => ({ seen, bars })),
          protocol: local?.protocol, address: local?.candidateType, to: `${remote?.protocol} ${remote?.address} ${remote?.port}`,
          rtt_ms: people.round(1000 * pair?.currentRoundTripTime), state: p.pc.connectionState,
        }];
      };
      return Object.fromEntries(await Promise.all(Object.entries(visitors).map(each)));
    };
    const first_frame_ms = Object.fromEntries(Object.entries(visitors).map(([name, p]) => [name, people.round(p.firstFrame)]));
    return { ready, first_frame_ms, seen: await looks() };
  }, options);
  let moved = null;
  if (moves && joined.ready) {
    const from = await page.evaluate(() => performance.now());
    await ask('move');
    moved = await page.evaluate(async (o, from) => {
      await people.sleep(o.seconds * 1000);
      const now = performance.now();
      const each = Object.entries(visitors).map(([name, p]) => [name, p.freezes(from, now).max_gap_ms]);
      const { participants } = await people.roomDocument(o.room);
      return { longest_gap_ms: Object.fromEntries(each), seen: await looks(), participants: participants.length };
    }, options, from);
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

// Calls over bad networks: whoever is in the page reaches the server by the tests' own relay.

/** Somebody on a link whose rate changes, in a call with bots; `link KBPS` has the relay changed, `counts` is what it did since. */
export async function thin_link({ page: open, options, ask }) {
  const page = await open();
  const ready = await page.evaluate(async (o) => {
    const { Person, roomDocument, program, until } = people;
    const log = (globalThis.tiers = []);
    const me = (globalThis.me = await new Person({ k: 0, room: o.room }).join());
    const events = people.events(o.room);
    const note = (p) => {
      const { tier, limit } = p.receives;
      if (p.id === me.id && log.at(-1)?.tier !== tier) log.push({ at: performance.now(), tier, limit });
    };
    const read = () => {
      for (const e of events.log.splice(0)) {
        if (e.type === 'room') e.participants.forEach(note);
        else if (e.participant?.receives) note(e.participant);
      }
    };
    setInterval(read, 20);
    const all = o.people;
    const in_time = await until(async () => program(await roomDocument(o.room)).tiles.length === all && me.frames.length > 30, 30_000, 200);
    await me.watchGaps();
    await people.sleep(5000);
    return in_time;
  }, options);

  const phases = [];
  for (const kbps of options.rates) {
    await ask(`link ${kbps}`);
    const phase = await page.evaluate(async (ms, settle) => {
      const { me } = globalThis;
      const from = performance.now();
      const [at_first, start] = [globalThis.tiers.at(-1)?.tier, await me.stats()];
      await people.sleep(settle);
      const [settled, before] = [performance.now(), await me.stats()];
      await people.sleep(ms - settle);
      const [to, after] = [performance.now(), await me.stats()];
      const seconds = (to - settled) / 1000;
      const gaps = me.gaps.filter((g) => g.at >= from && g.at < to);
      const rate = (kind) => people.round((8 * (after[kind].bytes - before[kind].bytes)) / seconds / 1000);
      return {
        at_first,
        tiers: globalThis.tiers.filter((t) => t.at >= from).map(({ at, ...t }) => ({ after_ms: people.round(at - from), ...t })),
        last: globalThis.tiers.at(-1)?.tier,
        concealed_ms: people.round((after.audio.concealed - start.audio.concealed) / 48),
        gap_ms: Math.max(0, ...gaps.map((g) => g.ms)),
        gaps: gaps.filter((g) => g.ms > 20).map((g) => ({ after_ms: people.round(g.at - from), ms: g.ms })),
        settled: {
          seconds: people.round(seconds),
          fps: people.round((after.video.decoded - before.video.decoded) / seconds, 2),
          ...me.freezes(settled, to),
          width: after.video.width,
          kbps: { audio: rate('audio'), video: rate('video') },
          concealed: people.round((after.audio.concealed - before.audio.concealed) / (after.audio.samples - before.audio.samples), 4),
          sound_waits_ms: people.round((after.audio.waited_ms - before.audio.waited_ms) / (after.audio.emitted - before.audio.emitted)),
          keyframes: after.video.keyframes - before.video.keyframes,
        },
      };
    }, options.seconds * 1000, 8000);
    phases.push({ kbps, ...phase, down: JSON.parse(await ask('counts')) });
  }
  await page.evaluate(() => globalThis.me.leave());
  return { ready, phases };
}

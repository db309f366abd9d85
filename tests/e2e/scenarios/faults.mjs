// Faults and attacks during a call.

/** Starts a call in the page as `globalThis.call` and records it. */
async function startCall(page, options, count) {
  return page.evaluate(
    async (o, n) => {
      const { Person, roomDocument, program, until, sleep } = people;
      const all = [];
      for (let k = 0; k < n; k += 1) all.push(await new Person({ k, room: o.room }).join());
      const ready = await until(
        async () => program(await roomDocument(o.room)).tiles.length === n && all.every((p) => p.frames.length > 5),
        15_000,
        200,
      );
      for (const p of all) p.watchSound();
      globalThis.call = { all, room: o.room, events: people.events(o.room) };
      await sleep(2000);
      return ready;
    },
    options,
    count,
  );
}

/** Freezes and silences of the call of `startCall` between two times of the page, and its current state. */
async function judgeCall(page, from, to) {
  return page.evaluate(
    async (start, end) => {
      const { look, listen, roomDocument, program } = people;
      const { all, room, events } = globalThis.call;
      const view = program(await roomDocument(room));
      const owner = Object.fromEntries(all.map((p) => [p.id, p.k]));
      const each = await Promise.all(
        all.map(async (p) => {
          const seen = await look(p, view, 2000);
          return {
            k: p.k,
            freeze_ms: p.freezes(start, end).max_gap_ms,
            silence_ms: p.silence(start, end),
            states: p.states,
            ended: p.ended,
            wrong_tiles: seen.filter((t) => t.seen !== owner[t.participant] || t.away > 14),
            still_tiles: seen.filter((t) => t.bars < 3),
            tiles: seen.length,
            sound: await listen(p, { expected: all.map((q) => q.k).filter((k) => k !== p.k), strangers: [p.k] }),
            stats: await p.stats(),
          };
        }),
      );
      const told = events.log
        .filter((e) => e.at >= start)
        .map(({ at, type, state }) => ({
          after_ms: people.round(at - start),
          type,
          state,
        }));
      return { people: each, events: told.filter((e) => e.type !== 'levels') };
    },
    from,
    to,
  );
}

const clock = (page) => page.evaluate(() => performance.now());
const wait = (page, ms) => page.evaluate((t) => people.sleep(t), ms);

/** A call of three whose mixer process is killed or stopped: `what` is `kill-mixer` or `stop-mixer`. */
async function mixerFault({ page: open, options, ask }, what) {
  const page = await open();
  const ready = await startCall(page, options, 3);
  const from = await clock(page);
  await ask(what);
  await wait(page, 9000);
  return { ready, ...(await judgeCall(page, from, await clock(page))) };
}

export const mixer_killed = (stage) => mixerFault(stage, 'kill-mixer');
export const mixer_stopped = (stage) => mixerFault(stage, 'stop-mixer');

/** A call of two during junk on the media port and joins that never connect. */
export async function flood({ page: open, options, ask }) {
  const page = await open();
  const ready = await startCall(page, options, 2);
  const from = await clock(page);
  const done = await ask('flood');
  await wait(page, 2000);
  const to = await clock(page);
  return { ready, took_ms: Math.round(to - from), flood: JSON.parse(done), ...(await judgeCall(page, from, to)) };
}

/** A call of two during invalid requests for its room. */
export async function bad_requests({ page: open, options, ask }) {
  const page = await open();
  const ready = await startCall(page, options, 2);
  const from = await clock(page);
  const done = await ask(`bad-requests ${options.room}`);
  await wait(page, 1000);
  return { ready, requests: JSON.parse(done), ...(await judgeCall(page, from, await clock(page))) };
}

// Views of participants: what each receives, and whether a change of the view stops the picture.

/** Ann with a view of her own, without herself, and Bob with `program`; then Ann changes her view three times. */
export async function personal_views({ page: open, options }) {
  const page = await open();
  return page.evaluate(async (o) => {
    const { Person, sleep, look, roomDocument, program, until } = people;
    const ann = await new Person({ k: 0, room: o.room, query: '&view=own&self_view=hidden' }).join();
    const bob = await new Person({ k: 1, room: o.room }).join();
    /** The view that a participant receives now. */
    const received = async (person) => {
      const document = await roomDocument(o.room);
      const name = document.participants.find((p) => p.id === person.id)?.receives.view;
      return document.views.find(({ view }) => view === name);
    };
    const colours = async (person, view) => (await look(person, view)).map(({ seen, away }) => away < 14 && seen);
    const joined = async () =>
      program(await roomDocument(o.room)).tiles.length === 2 && [ann, bob].every((p) => p.frames.length > 10);
    const ready = await until(joined, 15_000, 200);
    await sleep(1000);
    const first = { ann: await received(ann), bob: await received(bob) };
    const measured = {
      ready,
      names: [first.ann.view, first.bob.view],
      ann: await colours(ann, first.ann),
      bob: await colours(bob, first.bob),
      changes: [],
    };
    for (const change of [
      { view: 'program', self_view: 'shown' },
      { view: 'own', canvas: { width: 720, height: 1280 } },
      { self_view: 'hidden' },
    ]) {
      const from = performance.now();
      const response = await fetch(`/v1/rooms/${o.room}/participants/${ann.id}`, {
        method: 'PATCH',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify(change),
      });
      const view = await received(ann);
      const { width, height } = view.canvas;
      const resized = await until(() => ann.video.videoWidth === width && ann.video.videoHeight === height, 5000);
      await sleep(2500);
      const freezes = ann.freezes(from, performance.now());
      measured.changes.push({ status: response.status, resized, freezes, tiles: await colours(ann, view) });
    }
    const document = await roomDocument(o.room);
    measured.streams = document.streams.map(({ key }) => key.replace(/own-[0-9a-f]+/, 'own'));
    measured.views = document.views.length;
    await ann.leave();
    await bob.leave();
    return measured;
  }, options);
}

/** Four people, one of whom receives; a moderator switches through all kinds of layouts. */
export async function switched_layouts({ page: open, options }) {
  const page = await open();
  return page.evaluate(async (o) => {
    const { Person, sleep, roomDocument, program, until } = people;
    const picture = { width: 160, height: 90, fps: 20 };
    const watcher = await new Person({ k: 0, room: o.room, picture }).join();
    const others = [];
    for (let k = 1; k < 4; k += 1)
      others.push(await new Person({ k, room: o.room, picture, receive: { video: false, audio: false } }).join());
    const joined = async () => program(await roomDocument(o.room)).tiles.length === 4 && watcher.frames.length > 20;
    const ready = await until(joined, 15_000, 200);
    await sleep(1500);
    const frozen = async () => (await watcher.stats()).video;
    const before = await frozen();
    const half = { y: 0, width: 0.5, height: 1 };
    const tiles = [{ ...half, x: 0, source: 'speaker' }, { ...half, x: 0.5, source: 'rank:1', fit: 'cover' }];
    const kinds = ['grid', 'grid_fill', 'speaker', 'spotlight', 'presentation', 'picture_in_picture', 'side_by_side'];
    kinds.push('stage', 'one_plus_5', 'one_plus_7', 'one_plus_9', 'active', 'custom', 'auto');
    const switches = [];
    for (const kind of kinds) {
      const from = performance.now();
      const response = await fetch(`/v1/rooms/${o.room}`, {
        method: 'PATCH',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify({ layout: { kind, ...(kind === 'custom' && { tiles }) } }),
      });
      await sleep(1200);
      const { max_received_gap_ms, max_gap_ms, frames } = watcher.freezes(from, performance.now());
      const drawn = program(await roomDocument(o.room)).kind;
      switches.push({ kind, status: response.status, drawn, frames, max_received_gap_ms, max_gap_ms });
    }
    const after = await frozen();
    for (const person of [watcher, ...others]) await person.leave();
    return { ready, switches, freezes: after.freezes - before.freezes };
  }, options);
}

/** Nine people with nine views of their own. */
export async function nine_views({ page: open, options }) {
  const page = await open();
  return page.evaluate(async (o) => {
    const { Person, roomDocument, until, look } = people;
    const kinds = ['grid', 'grid_fill', 'speaker', 'stage', 'presentation', 'picture_in_picture', 'side_by_side'];
    kinds.push('one_plus_5', 'one_plus_9');
    const all = [];
    for (const [k, kind] of kinds.entries()) {
      const query = `&view=own&layout=${kind}&self_view=${k % 2 ? 'hidden' : 'shown'}`;
      all.push(await new Person({ k, room: o.room, query, picture: { width: 160, height: 90, fps: 5 } }).join());
    }
    const viewOf = (document, { id }) => {
      const { receives } = document.participants.find((p) => p.id === id);
      return { fallback: Boolean(receives.view_fallback), view: document.views.find((v) => v.view === receives.view) };
    };
    const complete = async () => {
      const document = await roomDocument(o.room);
      const most = Math.max(...document.views.map(({ tiles }) => tiles.length));
      return most === 9 && all.every(({ frames }) => frames.length > 10);
    };
    const ready = await until(complete, 25_000, 200);
    const document = await roomDocument(o.room);
    const seen = await Promise.all(
      all.map(async (person) => {
        const { fallback, view } = viewOf(document, person);
        const tiles = await look(person, view, 1000);
        const right = tiles.filter(({ participant, seen: k }) => all[k]?.id === participant).length;
        return { name: view.view, kind: view.kind, fallback, tiles: tiles.length, right };
      }),
    );
    const from = performance.now();
    await people.sleep(2000);
    const frames = all.map((person) => person.freezes(from, performance.now()).frames);
    const streams = document.streams.filter(({ subscribers }) => subscribers > 0).length;
    for (const person of all) await person.leave();
    return { ready, seen, frames, streams };
  }, options);
}

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

// A participant in a room with inputs, which look and sound like participants 1 to 4.

export async function inputs({ page: open, options, ask, keep }) {
  const page = await open();
  await page.evaluate(async (o) => {
    globalThis.subject = await new people.Person({ k: 0, room: o.room }).join();
  }, options);
  await ask(`begin ${options.room}`);

  const measure = () =>
    page.evaluate(
      async ({ room }) => {
        const { sleep, look, listen, roomDocument, program, until } = people;
        const person = globalThis.subject;
        const live = async () => {
          const document = await roomDocument(room);
          return (
            document.inputs.filter((input) => input.state === 'live').length === 4 &&
            document.participants.flatMap((p) => p.sends).filter((s) => s.kind === 'camera' && s.size).length === 5
          );
        };
        const ready = await until(live, 20_000, 200);
        await sleep(3000);
        const document = await roomDocument(room);
        const owner = Object.fromEntries(
          document.inputs.map((input) => [input.participant, Number(input.name.at(-1))]),
        );
        owner[person.id] = 0;
        // On a busy machine the page samples rarely, so it needs time to see several positions of each bar.
        const tiles = await look(person, program(document), 6000);
        // The page's own camera is not an input and may freeze while the page is busy.
        const theirs = tiles.filter((t) => owner[t.participant] !== 0);
        const easel = Object.assign(globalThis.document.createElement('canvas'), {
          width: person.video.videoWidth,
          height: person.video.videoHeight,
        });
        easel.getContext('2d').drawImage(person.video, 0, 0);
        return {
          ready,
          participants: document.participants.map((p) => p.id),
          inputs: document.inputs,
          tiles,
          wrong_tiles: theirs.filter((t) => t.seen !== owner[t.participant] || t.away > 14),
          still_tiles: theirs.filter((t) => t.bars < 4),
          sound: await listen(person, { expected: [1, 2, 3, 4], strangers: [0] }),
          picture: easel.toDataURL('image/png'),
        };
      },
      { room: options.room },
    );

  const { picture, ...before } = await measure();
  await keep('inputs', picture);
  await ask(`kill ${options.room}`);
  await page.evaluate(() => people.sleep(1500));
  const { picture: later, inputs: told, ...after } = await measure();
  await keep('inputs-after', later);
  return { before, after, inputs: told };
}

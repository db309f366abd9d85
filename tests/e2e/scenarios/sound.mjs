// Audio in both qualities, full and thin.

/** Two participants at a low tier and one at the best, who receive each other; then their tiers change. */
export async function qualities({ page: open, options }) {
  const page = await open();
  return page.evaluate(async (o) => {
    const { Person, sleep, listen, roomDocument, until, round } = people;
    const { room } = o;
    const all = [];
    for (const [k, tier] of ['low', 'low', 'high'].entries()) {
      all.push(await new Person({ k, room, query: `&tier=${tier}` }).join());
    }
    const ready = await until(
      async () => (await roomDocument(room)).participants.length === 3 && all.every((p) => p.frames.length > 5),
      15_000,
      200,
    );
    await sleep(3000);

    const received = async (person) => {
      const stats = [...(await person.pc.getStats()).values()];
      const audio = stats.find((s) => s.type === 'inbound-rtp' && s.kind === 'audio');
      return Object.fromEntries(
        [
          'bytesReceived',
          'headerBytesReceived',
          'packetsReceived',
          'packetsLost',
          'concealedSamples',
          'silentConcealedSamples',
          'totalSamplesReceived',
          'jitterBufferDelay',
          'jitterBufferEmittedCount',
        ].map((name) => [name, audio[name]]),
      );
    };
    const [before, from] = [await Promise.all(all.map(received)), performance.now()];
    const heard = await Promise.all(
      all.map((p) =>
        listen(p, {
          expected: all.map((other) => other.k).filter((k) => k !== p.k),
          strangers: [p.k],
        }),
      ),
    );
    const [after, seconds] = [await Promise.all(all.map(received)), (performance.now() - from) / 1000];
    const each = all.map((p, i) => {
      const more = (name) => after[i][name] - before[i][name];
      return {
        k: p.k,
        sound: heard[i],
        kbps: round((more('bytesReceived') * 8) / seconds / 1000),
        header_bytes: round(more('headerBytesReceived') / more('packetsReceived')),
        packets: round(more('packetsReceived') / seconds),
        lost: more('packetsLost'),
        concealed: round(more('concealedSamples') / more('totalSamplesReceived'), 4),
        buffer_ms: round((1000 * more('jitterBufferDelay')) / more('jitterBufferEmittedCount')),
      };
    });

    // First a receiver changes its tier repeatedly, then a sender, whose tone the others must still receive.
    const stop = all.map((p) => p.watchSound());
    await sleep(1000);
    const changes = [];
    for (const tier of ['high', 'low', 'high', 'low']) {
      const began = performance.now();
      const answer = await fetch(`/v1/rooms/${room}/participants/${all[0].id}`, {
        method: 'PATCH',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify({ tier }),
      });
      const then = await received(all[0]);
      await sleep(4000);
      const now = await received(all[0]);
      changes.push({
        tier,
        status: answer.status,
        silence_ms: all.map((p) => p.silence(began, performance.now())),
        packets: round((now.packetsReceived - then.packetsReceived) / 4),
        lost: now.packetsLost - then.packetsLost,
        concealed_ms: round((now.concealedSamples - then.concealedSamples) / 48),
        silent_ms: round((now.silentConcealedSamples - then.silentConcealedSamples) / 48),
      });
    }
    stop.forEach((end) => end());
    const limits = (await roomDocument(room)).participants.map(({ receives }) => receives);
    for (const p of all) await p.leave();
    return { ready, people: each, changes, receives: limits };
  }, options);
}

// What senders send: as much as their tiles show.

/** One whose camera is full of noise, alone with another, then in a room of nine, then alone with the other again. */
export async function uplink({ page: open, options }) {
  const page = await open();
  return page.evaluate(async (o) => {
    const { Person, sleep, roomDocument, program, until, round } = people;
    const { room } = o;
    // Noise takes whatever bits it gets.
    const [width, height] = [640, 360];
    const canvas = Object.assign(document.createElement('canvas'), { width, height });
    const pen = canvas.getContext('2d', { alpha: false });
    const draw = () => {
      for (let y = 0; y < height; y += 10) {
        for (let x = 0; x < width; x += 10) {
          pen.fillStyle = `hsl(${Math.random() * 360} 60% ${20 + Math.random() * 60}%)`;
          pen.fillRect(x, y, 10, 10);
        }
      }
    };
    const timer = setInterval(draw, 1000 / 15);
    const noise = canvas.captureStream(15).getVideoTracks()[0];

    const sender = await new Person({ k: 0, room, picture: { width: 160, height: 90, fps: 5 } }).join();
    await sender.videoTransceiver.sender.replaceTrack(noise);
    const all = [sender];
    const small = { width: 160, height: 90, fps: 5 };
    const join = async (n) => {
      while (all.length < n) {
        all.push(await new Person({ k: all.length, room, picture: small, receive: { video: all.length === 1 } }).join());
      }
    };
    const shown = (n) => until(async () => program(await roomDocument(room)).tiles.length === n, 15_000, 200);
    const sent = async () => {
      const stats = [...(await sender.pc.getStats()).values()];
      const outbound = (kind) => stats.find((s) => s.type === 'outbound-rtp' && s.kind === kind);
      const pair = stats.find((s) => s.type === 'candidate-pair' && s.nominated);
      return {
        at: performance.now(), video: outbound('video').bytesSent, audio: outbound('audio').packetsSent,
        target: outbound('video').targetBitrate, available: pair.availableOutgoingBitrate,
      };
    };
    /** How long until the target is within `kbps`, then what is sent for some seconds. */
    const settle = async (people, [from, to], within) => {
      const began = performance.now();
      const settled = await until(async () => {
        const kbps = (await sent()).target / 1000;
        return kbps >= from && kbps <= to;
      }, within, 100);
      const took = performance.now() - began;
      await sleep(1000);
      const before = await sent();
      await sleep(5000);
      const after = await sent();
      const tile = program(await roomDocument(room)).tiles.find((t) => t.participant === sender.id);
      return {
        people, settled, took_ms: round(took, 0), tile: [tile.width, tile.height],
        target_kbps: round(after.target / 1000), available_kbps: round(after.available / 1000),
        sent_kbps: round(((after.video - before.video) * 8) / (after.at - before.at)),
        audio_packets: round(((after.audio - before.audio) * 1000) / (after.at - before.at)),
      };
    };
    await join(2);
    const ready = await shown(2);
    const phases = [await settle(2, [420, 580], 30_000)];
    await join(9);
    const full = await shown(9);
    phases.push(await settle(9, [180, 300], 10_000));
    for (const p of all.splice(2)) await p.leave();
    phases.push(await settle(2, [420, 580], 30_000));
    clearInterval(timer);
    for (const p of all) await p.leave();
    return { ready, full, phases };
  }, options);
}

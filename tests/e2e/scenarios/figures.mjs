// Delay and cost of a whole call, for `make bench`.

/** Glass-to-glass delay, measured by a clock in the video, through the mix and directly. */
export async function delay({ page: open, options }) {
  const page = await open();
  return page.evaluate(async (o) => {
    const { Person, sleep, roomDocument, program, until, round } = people;
    const [width, height] = [640, 360];
    const COLUMNS = 8;
    const ROWS = [0.25, 0.45]; // upper edges of the two rows of bits, as shares of the height
    const CELL = { width: 1 / COLUMNS, height: 0.2 };

    // The picture has 16 bits of the page's clock in ms as black and white cells, and a parity stripe above.
    const canvas = Object.assign(document.createElement('canvas'), { width, height });
    const pen = canvas.getContext('2d', { alpha: false });
    const draw = () => {
      const now = Math.round(performance.now()) & 0xffff;
      pen.fillStyle = '#808080';
      pen.fillRect(0, 0, width, height);
      for (let bit = 0; bit < 16; bit += 1) {
        pen.fillStyle = (now >> bit) & 1 ? '#fff' : '#000';
        pen.fillRect(
          (bit % COLUMNS) * CELL.width * width,
          ROWS[bit >> 3] * height,
          CELL.width * width,
          CELL.height * height,
        );
      }
    };
    const timer = setInterval(draw, 1000 / 30);
    const track = canvas.captureStream(30).getVideoTracks()[0];

    const easel = Object.assign(document.createElement('canvas'), { width: 160, height: 90 });
    const reader = easel.getContext('2d', { willReadFrequently: true });
    /** The delays of the frames that a video element shows; `part` is the rectangle of the clock in the frame. */
    const measure = async (video, part, ms) => {
      const delays = [];
      let running = true;
      const each = (now, frame) => {
        const { videoWidth: w, videoHeight: h } = video;
        reader.drawImage(video, part.x * w, part.y * h, part.width * w, part.height * h, 0, 0, 160, 90);
        const { data } = reader.getImageData(0, 0, 160, 90);
        let time = 0;
        let clear = true;
        for (let bit = 0; bit < 16; bit += 1) {
          const x = Math.floor(((bit % COLUMNS) + 0.5) * CELL.width * 160);
          const y = Math.floor((ROWS[bit >> 3] + CELL.height / 2) * 90);
          const luma = data[4 * (y * 160 + x) + 1];
          if (luma > 60 && luma < 195) clear = false;
          if (luma >= 128) time |= 1 << bit;
        }
        const late = (Math.round(frame.expectedDisplayTime) - time) & 0xffff;
        if (clear && late < 5000) delays.push(late);
        if (running) video.requestVideoFrameCallback(each);
      };
      video.requestVideoFrameCallback(each);
      await sleep(ms);
      running = false;
      delays.sort((a, b) => a - b);
      return {
        frames: delays.length,
        median_ms: delays[delays.length >> 1] ?? null,
        p95_ms: delays[Math.floor(delays.length * 0.95)] ?? null,
      };
    };

    // Through the mix: one participant sends the clock, the other sends a colour and watches.
    const sender = new Person({ k: 0, room: o.room, picture: { width, height, fps: 1 } });
    const watcher = new Person({ k: 1, room: o.room });
    await sender.join();
    await sender.videoTransceiver.sender.replaceTrack(track);
    await watcher.join();
    await until(
      async () => program(await roomDocument(o.room)).tiles.length === 2 && watcher.frames.length > 30,
      15_000,
      200,
    );
    await sleep(4000);
    const view = program(await roomDocument(o.room));
    const tile = view.tiles.find((t) => t.participant === sender.id);
    const part = {
      x: tile.x / view.canvas.width,
      y: tile.y / view.canvas.height,
      width: tile.width / view.canvas.width,
      height: tile.height / view.canvas.height,
    };
    const mixed = await measure(watcher.video, part, o.seconds * 1000);
    const first_frame_ms = [sender, watcher].map((p) => round(p.firstFrame));
    await sender.leave();
    await watcher.leave();

    // Directly: the same video from one peer connection of this page to another.
    const [a, b] = [new RTCPeerConnection(), new RTCPeerConnection()];
    a.onicecandidate = ({ candidate }) => candidate && b.addIceCandidate(candidate);
    b.onicecandidate = ({ candidate }) => candidate && a.addIceCandidate(candidate);
    const video = Object.assign(document.createElement('video'), { muted: true, autoplay: true });
    document.body.append(video);
    b.ontrack = ({ streams: [stream] }) => {
      video.srcObject = stream;
    };
    a.addTrack(track, new MediaStream([track]));
    await a.setLocalDescription();
    await b.setRemoteDescription(a.localDescription);
    await b.setLocalDescription();
    await a.setRemoteDescription(b.localDescription);
    await until(() => video.videoWidth > 0, 10_000);
    await sleep(4000);
    const direct = await measure(video, { x: 0, y: 0, width: 1, height: 1 }, o.seconds * 1000);
    a.close();
    b.close();
    clearInterval(timer);
    return { mixed, direct, added_median_ms: mixed.median_ms - direct.median_ms, first_frame_ms };
  }, options);
}

/** CPU use of a room in a steady call; the request `cpu` returns the CPU seconds so far. */
export async function cost({ page: open, options, ask }) {
  const page = await open();
  const seen = await page.evaluate(async (o) => {
    globalThis.all = [];
    for (let k = 0; k < o.people; k += 1) {
      const picture = { width: 640, height: 360, fps: 30 };
      globalThis.all.push(await new people.Person({ k, room: o.room, picture, receive: { video: k === 0 } }).join());
    }
    await people.sleep(5000);
    return (await people.roomDocument(o.room)).participants.length;
  }, options);
  const [before, from] = [JSON.parse(await ask('cpu')), performance.now()];
  await new Promise((resolve) => {
    setTimeout(resolve, options.seconds * 1000);
  });
  const [after, seconds] = [JSON.parse(await ask('cpu')), (performance.now() - from) / 1000];
  const sent = await page.evaluate(async () => {
    const rates = [];
    for (const p of globalThis.all) {
      for (const s of (await p.pc.getStats()).values()) {
        if (s.type === 'outbound-rtp' && s.kind === 'video')
          rates.push([s.frameWidth, s.frameHeight, s.framesPerSecond].join('x'));
      }
    }
    for (const p of globalThis.all) await p.leave();
    return rates;
  });
  const share = (name) => Number(((after[name] - before[name]) / seconds).toFixed(3));
  return { people: seen, sent, mixer_cores: share('mixer'), server_cores: share('server') };
}

/**
 * A browser-based recorder: a page in its own Chromium plays videos, composes them on a canvas and records the result.
 * Requests `films`, a JSON list of URLs, and `watch PID`, Chromium's process, while it records.
 */
export async function recorded_by_page({ chromium, options, ask }) {
  const browser = await chromium();
  const page = await browser.newPage();
  await page.setViewport({ width: 1280, height: 720 });
  await page.goto(`${options.url}/healthz`);
  await page.evaluate(
    async (urls) => {
      const [width, height, columns] = [1280, 720, Math.ceil(Math.sqrt(urls.length))];
      const canvas = Object.assign(document.createElement('canvas'), { width, height });
      document.body.replaceChildren(canvas);
      const pen = canvas.getContext('2d', { alpha: false });
      const sounds = new AudioContext();
      const mix = sounds.createMediaStreamDestination();
      const videos = await Promise.all(
        urls.map(async (url) => {
          const video = Object.assign(document.createElement('video'), { src: url, loop: true });
          sounds.createMediaElementSource(video).connect(mix);
          await video.play();
          return video;
        }),
      );
      let drawn = 0;
      const draw = () => {
        videos.forEach((video, i) => {
          const [w, h] = [width / columns, height / columns];
          pen.drawImage(video, (i % columns) * w, Math.floor(i / columns) * h, w, h);
        });
        drawn += 1;
      };
      setInterval(draw, 1000 / 30);
      const stream = new MediaStream([...canvas.captureStream(30).getVideoTracks(), ...mix.stream.getAudioTracks()]);
      const recorder = new MediaRecorder(stream, {
        mimeType: 'video/webm;codecs=vp8,opus',
        videoBitsPerSecond: 1_500_000,
      });
      let bytes = 0;
      recorder.ondataavailable = ({ data }) => {
        bytes += data.size;
      };
      recorder.start(1000);
      window.sums = () => ({
        drawn,
        bytes,
        at: performance.now(),
        playing: videos.filter((v) => !v.paused && v.readyState > 2).length,
      });
    },
    JSON.parse(await ask('films')),
  );
  await new Promise((resolve) => {
    setTimeout(resolve, 3000);
  });
  const before = await page.evaluate('sums()');
  await ask(`watch ${browser.process().pid}`);
  const after = await page.evaluate('sums()');
  const seconds = (after.at - before.at) / 1000;
  return {
    playing: after.playing,
    fps: (after.drawn - before.drawn) / seconds,
    kbps: ((after.bytes - before.bytes) * 8) / 1000 / seconds,
  };
}

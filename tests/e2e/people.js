// Simulated participants with one colour and one tone each. Runs in a page of the server's origin, as
// `globalThis.people`. Each has one peer connection, sends coloured video with a moving bar and a sine tone, and
// measures what it receives. This file only measures; the Rust tests check the results.

(() => {
  // Colours that stay distinct after conversion to I420.
  const COLOURS = [
    [200, 30, 30],
    [30, 160, 50],
    [40, 60, 210],
    [220, 200, 40],
    [190, 40, 190],
    [40, 190, 210],
    [235, 125, 20],
    [250, 175, 205],
    [90, 60, 30],
  ];
  // No tone is a harmonic or an intermodulation product (2a-b, a+b, a-b) of others.
  const TONES = [363, 451, 591, 788, 1067, 1450, 1876, 2416, 3081];
  const AMPLITUDE = 0.06;
  const BAR_TURN = 800; // ms for the bar to cross the middle of the tile, which is visible when the sides are cropped
  const BEEP = 2000; // Hz, the tone of a beep

  const sleep = (ms) => new Promise((resolve) => { setTimeout(resolve, ms); });
  const distance = (a, b) => Math.hypot(a[0] - b[0], a[1] - b[1], a[2] - b[2]);
  const round = (x, digits = 1) => (Number.isFinite(x) ? Number(x.toFixed(digits)) : null);

  const RECORDER = `registerProcessor('recorder', class extends AudioWorkletProcessor {
    process([input]) {
      if (input[0]) this.port.postMessage(input[0].slice());
      return true;
    }
  });`;

  const EAR = `registerProcessor('ear', class extends AudioWorkletProcessor {
    quiet = null;
    process([input]) {
      const samples = input[0] ?? [];
      const loud = samples.some((x) => Math.abs(x) > 0.005);
      const now = currentTime * 1000;
      if (!loud) this.quiet ??= now;
      else if (this.quiet !== null) {
        this.port.postMessage({ from: this.quiet, ms: now - this.quiet });
        this.quiet = null;
      }
      return true;
    }
  });`;

  let recorder = null;
  let context = null;
  function audio() {
    context ??= new AudioContext({ sampleRate: 48000 });
    if (context.state !== 'running') context.resume();
    return context;
  }

  /** `busy` fills the lower half with noise that changes in every frame, so that a frame takes many packets. */
  function camera(k, { width, height, fps, busy = false }) {
    const canvas = document.createElement('canvas');
    Object.assign(canvas, { width, height });
    const pen = canvas.getContext('2d', { alpha: false });
    const [r, g, b] = COLOURS[k];
    const bar = 0.3 * r + 0.59 * g + 0.11 * b > 110 ? 'rgb(0,0,0)' : 'rgb(255,255,255)';
    const draw = () => {
      pen.fillStyle = `rgb(${r},${g},${b})`;
      pen.fillRect(0, 0, width, height);
      pen.fillStyle = bar;
      const at = (performance.now() % BAR_TURN) / BAR_TURN;
      pen.fillRect(Math.round((0.3 + at * 0.3) * width), 0, Math.round(width * 0.1), height);
      for (let i = 0; busy && i < 60; i += 1) {
        pen.fillStyle = `hsl(${360 * Math.random()} 70% 50%)`;
        pen.fillRect(width * Math.random(), height * (0.6 + 0.35 * Math.random()), width / 16, height / 20);
      }
    };
    draw();
    const timer = setInterval(draw, 1000 / fps);
    const track = canvas.captureStream(fps).getVideoTracks()[0];
    return {
      track,
      stop: () => {
        clearInterval(timer);
        track.stop();
      },
    };
  }

  /** A tone, or `speech`, an audio file in base64, in a loop. */
  async function microphone(k, speech) {
    const ctx = audio();
    if (speech) {
      const bytes = Uint8Array.from(atob(speech), (c) => c.charCodeAt(0));
      const voice = new AudioBufferSourceNode(ctx, { buffer: await ctx.decodeAudioData(bytes.buffer), loop: true });
      const out = new MediaStreamAudioDestinationNode(ctx, { channelCount: 1 });
      voice.connect(out);
      voice.start();
      const track = out.stream.getAudioTracks()[0];
      return {
        track,
        stop: () => {
          voice.stop();
          track.stop();
        },
      };
    }
    const tone = new OscillatorNode(ctx, { frequency: TONES[k] });
    const gain = new GainNode(ctx, { gain: AMPLITUDE });
    const out = new MediaStreamAudioDestinationNode(ctx, { channelCount: 1 });
    tone.connect(gain).connect(out);
    tone.start();
    const track = out.stream.getAudioTracks()[0];
    return {
      track,
      stop: () => {
        tone.stop();
        track.stop();
      },
    };
  }

  /** Dark video with a white flash and a beep of 100 ms every two seconds. */
  function clapper({ width, height, fps }) {
    const ctx = audio();
    const canvas = Object.assign(document.createElement('canvas'), { width, height });
    const pen = canvas.getContext('2d', { alpha: false });
    // A captured canvas is read with the next frame of a busy page, up to 50 ms after the flash was drawn.
    const camera = new MediaStreamTrackGenerator({ kind: 'video' });
    const writer = camera.writable.getWriter();
    let white = false;
    const draw = () => {
      pen.fillStyle = white ? 'rgb(255,255,255)' : `rgb(20,20,${20 + Math.round(4 * Math.random())})`;
      pen.fillRect(0, 0, width, height);
      const frame = new VideoFrame(canvas, { timestamp: Math.round(1000 * performance.now()) });
      // Writing fails after the track has ended.
      writer.write(frame).catch(() => frame.close());
    };
    const tone = new OscillatorNode(ctx, { frequency: BEEP });
    const gain = new GainNode(ctx, { gain: 0 });
    const out = new MediaStreamAudioDestinationNode(ctx, { channelCount: 1 });
    tone.connect(gain).connect(out);
    tone.start();
    // The beep starts after the flash was drawn, so that a busy page delays both.
    const clap = () => {
      white = true;
      draw();
      gain.gain.setValueAtTime(0.3, ctx.currentTime);
      gain.gain.setValueAtTime(0, ctx.currentTime + 0.1);
      setTimeout(() => {
        white = false;
        draw();
      }, 100);
    };
    const timers = [setInterval(draw, 1000 / fps), setInterval(clap, 2000)];
    const tracks = [camera, out.stream.getAudioTracks()[0]];
    const stop = () => {
      timers.forEach(clearInterval);
      tracks.forEach((track) => track.stop());
    };
    return tracks.map((track) => ({ track, stop }));
  }

  /** The type and address of the local candidate of the selected pair, and the transport to a relay. */
  async function selectedCandidate(pc) {
    const stats = await pc.getStats();
    const all = [...stats.values()];
    const transport = all.find(({ type }) => type === 'transport');
    // Firefox has no transport statistics; it marks the selected pair.
    const pair =
      stats.get(transport?.selectedCandidatePairId) ??
      all.find(({ type, selected }) => type === 'candidate-pair' && selected);
    const ours = stats.get(pair?.localCandidateId);
    return ours
      ? { kind: ours.candidateType, protocol: ours.relayProtocol ?? ours.protocol, address: ours.address }
      : null;
  }

  class Person {
    // Set by the constructor.
    k;
    room;
    name;
    codec;
    query;
    /** @type {RTCRtpEncodingParameters[] | undefined} */
    encodings;
    speech;
    claps;
    connection;
    /** @type {MediaStream | undefined} The received stream. */
    stream;
    /** @type {number | undefined} The time of the first frame. */
    firstFrame;
    /** @type {HTMLCanvasElement | undefined} */
    easel;

    /**
     * k: colour and tone. send: {video, audio}; receive: {video, audio}; codec: of the sent video, and of the
     * received video if the server encodes it, else VP8; path: the URL path of the POST, by default
     * `/v1/rooms/ROOM/participants`; query: additional query parameters; encodings: simulcast encodings; speech: an
     * audio file in base64 instead of the tone; claps: flashes and beeps instead of colour and tone; connection:
     * additional configuration of the peer connection.
     */
    constructor({
      k = 0,
      room,
      name = `tone${TONES[k]}`,
      send = {},
      receive = {},
      codec = null,
      path = null,
      query = '',
      encodings,
      speech,
      claps = false,
      connection = {},
      picture = { width: 320, height: 180, fps: 15 },
    }) {
      Object.assign(this, { k, room, name, codec, query, encodings, speech, claps, connection });
      this.path = path ?? `/v1/rooms/${room}/participants`;
      this.send = { video: true, audio: true, ...send };
      this.receive = { video: true, audio: true, ...receive };
      this.picture = picture;
      this.tracks = { video: 0, audio: 0 };
      this.ended = [];
      this.states = [];
      this.frames = [];
    }

    async join() {
      if (this.claps) [this.camera, this.microphone] = clapper(this.picture);
      else {
        if (this.send.video) this.camera = camera(this.k, this.picture);
        if (this.send.audio) this.microphone = await microphone(this.k, this.speech);
      }
      const pc = (this.pc = new RTCPeerConnection({ bundlePolicy: 'max-bundle', ...this.connection }));
      pc.onconnectionstatechange = () => this.states.push(pc.connectionState);
      pc.ontrack = ({ track }) => this.#take(track);
      const named = (codec) =>
        RTCRtpReceiver.getCapabilities('video').codecs.filter(
          (c) => c.mimeType.toLowerCase() === `video/${codec.toLowerCase()}`,
        );
      const encoded = !this.codec || ['VP8', 'H264'].includes(this.codec);
      const transceiver = (kind, source) => {
        const direction = this.send[kind] ? (this.receive[kind] ? 'sendrecv' : 'sendonly') : 'recvonly';
        // By default a browser sends the first codec of the answer, which is the codec that it receives.
        /** @type {(RTCRtpEncodingParameters & { codec?: RTCRtpCodec })[] | undefined} */
        const encodings = this.encodings ?? (encoded ? undefined : [{ codec: named(this.codec)[0] }]);
        const sendEncodings = kind === 'video' ? encodings : undefined;
        if (this.send[kind] || this.receive[kind])
          return pc.addTransceiver(source?.track ?? kind, { direction, sendEncodings });
      };
      transceiver('audio', this.microphone);
      this.videoTransceiver = transceiver('video', this.camera);
      if (this.codec && this.videoTransceiver) {
        const helpers = ['rtx', 'red', 'ulpfec'].flatMap(named);
        this.videoTransceiver.setCodecPreferences([...named(this.codec), ...(encoded ? [] : named('VP8')), ...helpers]);
      }
      await pc.setLocalDescription();
      this.posted = performance.now();
      const response = await fetch(`${this.path}?name=${encodeURIComponent(this.name)}${this.query}`, {
        method: 'POST',
        headers: { 'content-type': 'application/sdp' },
        body: pc.localDescription.sdp,
      });
      const answer = await response.text();
      if (response.status !== 201) throw new Error(`joining ${this.path} was answered ${response.status}: ${answer}`);
      this.answeredAfter = performance.now() - this.posted;
      this.location = response.headers.get('location');
      this.id = response.headers.get('commingle-participant');
      this.links = response.headers.get('link');
      await pc.setRemoteDescription({ type: 'answer', sdp: answer });
      this.lines = answer.split(/\r?\n/).filter((line) => line.startsWith('m='));
      return this;
    }

    #take(track) {
      this.tracks[track.kind] += 1;
      track.onended = () => this.ended.push(track.kind);
      this.stream ??= new MediaStream();
      this.stream.addTrack(track);
      if (!this.video) {
        // Browsers pass a stream to Web Audio only if an element plays it.
        this.video = Object.assign(document.createElement('video'), { muted: true, autoplay: true, playsInline: true });
        this.video.style.cssText = 'width:160px;height:90px;display:inline-block';
        document.body.append(this.video);
        this.#watchFrames();
      }
      this.video.srcObject = this.stream;
    }

    #watchFrames() {
      const each = (now, frame) => {
        this.firstFrame ??= now - this.posted;
        this.frames.push({ shown: frame.presentationTime, received: frame.receiveTime ?? frame.presentationTime });
        this.video.requestVideoFrameCallback(each);
      };
      this.video.requestVideoFrameCallback(each);
    }

    /** The local candidate of the selected pair; see `selectedCandidate`. */
    async localCandidate() {
      return selectedCandidate(this.pc);
    }

    async leave() {
      if (this.location) {
        const response = await fetch(this.location, { method: 'DELETE' });
        this.leftWith = response.status;
      }
      this.hangUp();
    }

    /** Closes the connection without ending the session. */
    hangUp() {
      this.pc?.close();
      this.camera?.stop();
      this.microphone?.stop();
      this.video?.remove();
    }

    async cameraOff() {
      await this.videoTransceiver.sender.replaceTrack(null);
    }

    async cameraOn() {
      await this.videoTransceiver.sender.replaceTrack(this.camera.track);
    }

    /** The longest time in ms in which the watched tile did not move. */
    stillness(from, to) {
      const times = [from, ...this.moved.filter((t) => t >= from && t <= to), to];
      return round(Math.max(...times.slice(1).map((t, i) => t - times[i])));
    }

    /** Sizes and gaps in ms of the frames shown between two times. */
    freezes(from, to) {
      const inside = this.frames.filter((f) => f.shown >= from && f.shown <= to);
      const gaps = (of) => {
        const times = [from, ...inside.map((f) => f[of]), ...(of === 'shown' ? [to] : [])];
        return times.slice(1).map((t, i) => t - times[i]);
      };
      const shown = gaps('shown');
      const received = gaps('received').slice(1);
      return {
        frames: inside.length,
        max_gap_ms: round(Math.max(...shown)),
        gaps_over_200_ms: shown.filter((gap) => gap > 200).length,
        max_received_gap_ms: round(Math.max(0, ...received)),
      };
    }

    /** Records every 20 ms whether there is any audio. */
    watchSound() {
      const ear = new AnalyserNode(audio(), { fftSize: 1024 });
      audio().createMediaStreamSource(new MediaStream(this.stream.getAudioTracks())).connect(ear);
      const samples = new Float32Array(ear.fftSize);
      this.heard = [];
      const timer = setInterval(() => {
        ear.getFloatTimeDomainData(samples);
        const rms = Math.sqrt(samples.reduce((sum, x) => sum + x * x, 0) / samples.length);
        if (rms > 0.003) this.heard.push(performance.now());
      }, 20);
      return () => clearInterval(timer);
    }

    /**
     * Records every silence in blocks of 2.7 ms: `gaps` has the page's time and the length in ms. It runs in the audio
     * thread, so that a busy page causes no gaps.
     */
    async watchGaps() {
      const ctx = audio();
      await ctx.audioWorklet.addModule(URL.createObjectURL(new Blob([EAR], { type: 'text/javascript' })));
      const ear = new AudioWorkletNode(ctx, 'ear');
      this.gaps = [];
      const zero = performance.now() - ctx.currentTime * 1000;
      ear.port.onmessage = ({ data }) => this.gaps.push({ at: zero + data.from, ms: round(data.ms) });
      ctx.createMediaStreamSource(new MediaStream(this.stream.getAudioTracks())).connect(ear).connect(ctx.destination);
    }

    /** The longest silence between two times, in ms; needs `watchSound`. */
    silence(from, to) {
      const times = [from, ...this.heard.filter((t) => t >= from && t <= to), to];
      return round(Math.max(...times.slice(1).map((t, i) => t - times[i])));
    }

    /** The audio received in a time, as samples at 48 kHz; null without audio. */
    async record(ms) {
      const tracks = this.stream?.getAudioTracks() ?? [];
      if (!tracks.length) return null;
      const ctx = audio();
      recorder ??= ctx.audioWorklet.addModule(URL.createObjectURL(new Blob([RECORDER], { type: 'text/javascript' })));
      await recorder;
      const source = ctx.createMediaStreamSource(new MediaStream(tracks));
      const node = new AudioWorkletNode(ctx, 'recorder');
      const chunks = [];
      node.port.onmessage = ({ data }) => chunks.push(data);
      // Only nodes connected to the destination run; the recorder outputs silence.
      source.connect(node).connect(ctx.destination);
      await sleep(ms);
      source.disconnect();
      node.disconnect();
      const samples = new Float32Array(chunks.reduce((sum, chunk) => sum + chunk.length, 0));
      chunks.reduce((at, chunk) => {
        samples.set(chunk, at);
        return at + chunk.length;
      }, 0);
      return samples;
    }

    /** Records when the bar of this tile moves: `moved` has the page's times. */
    watchTile(tile, canvas) {
      this.moved = [];
      let last = null;
      const each = (now) => {
        const image = this.pixels();
        const bar = barPosition(image, tile, canvas, tileColour(image, tile, canvas));
        if (bar !== null && bar !== last) this.moved.push(now);
        last = bar ?? last;
        this.video.requestVideoFrameCallback(each);
      };
      this.video.requestVideoFrameCallback(each);
    }

    /** The current frame as pixels, at a small size. */
    pixels() {
      const { video } = this;
      if (!video?.videoWidth) return null;
      this.easel ??= Object.assign(document.createElement('canvas'), { width: 640, height: 360 });
      const pen = this.easel.getContext('2d', { willReadFrequently: true, alpha: false });
      pen.drawImage(video, 0, 0, 640, 360);
      return pen.getImageData(0, 0, 640, 360);
    }

    async stats() {
      const out = {};
      const stats = await this.pc.getStats();
      for (const s of stats.values()) {
        if (s.type === 'outbound-rtp' && s.kind === 'video') out.sent_codec = stats.get(s.codecId)?.mimeType;
        if (s.type === 'inbound-rtp') {
          out[s.kind] = {
            packets: s.packetsReceived,
            lost: s.packetsLost,
            jitter_ms: round(1000 * s.jitter),
            ...(s.kind === 'video'
              ? {
                  decoded: s.framesDecoded,
                  dropped: s.framesDropped,
                  freezes: s.freezeCount,
                  frozen_ms: round(1000 * s.totalFreezesDuration),
                  bytes: s.bytesReceived + s.headerBytesReceived,
                  width: s.frameWidth,
                  height: s.frameHeight,
                  keyframes: s.keyFramesDecoded,
                  plis: s.pliCount,
                  nacks: s.nackCount,
                  repairs_unasked: s.fecPacketsReceived ?? 0,
                }
              : {
                  concealed: s.concealedSamples,
                  silent: s.silentConcealedSamples,
                  samples: s.totalSamplesReceived,
                  bytes: s.bytesReceived + s.headerBytesReceived,
                  waited_ms: 1000 * s.jitterBufferDelay,
                  emitted: s.jitterBufferEmittedCount,
                }),
          };
        }
      }
      return out;
    }
  }

  /** The median of each channel over a grid inside a tile, which ignores the bar and the name. */
  function tileColour(image, tile, canvas) {
    const points = [];
    for (let row = 0; row < 5; row += 1) {
      for (let column = 0; column < 9; column += 1) {
        const x = ((tile.x + tile.width * (0.2 + 0.6 * (column / 8))) / canvas.width) * image.width;
        const y = ((tile.y + tile.height * (0.25 + 0.4 * (row / 4))) / canvas.height) * image.height;
        const at = 4 * (Math.floor(y) * image.width + Math.floor(x));
        points.push([image.data[at], image.data[at + 1], image.data[at + 2]]);
      }
    }
    return [0, 1, 2].map((c) => points.map((p) => p[c]).sort((a, b) => a - b)[points.length >> 1]);
  }

  /** The position of the bar in a tile, in hundredths of its width; null without a bar. */
  function barPosition(image, tile, canvas, colour) {
    const y = Math.floor(((tile.y + tile.height * 0.4) / canvas.height) * image.height);
    let sum = 0;
    let count = 0;
    for (let i = 8; i < 92; i += 1) {
      const x = Math.floor(((tile.x + (tile.width * i) / 100) / canvas.width) * image.width);
      const at = 4 * (y * image.width + x);
      if (distance([image.data[at], image.data[at + 1], image.data[at + 2]], colour) > 100) {
        sum += i;
        count += 1;
      }
    }
    return count >= 2 && count < 40 ? Math.round(sum / count) : null;
  }

  function nearest(colour) {
    const k = COLOURS.map((c) => distance(c, colour)).reduce((best, d, i, all) => (d < all[best] ? i : best), 0);
    return { k, away: round(distance(COLOURS[k], colour)) };
  }

  /** The picture of a video as PNG in base64. */
  function shot(video) {
    const easel = Object.assign(document.createElement('canvas'), { width: video.videoWidth, height: video.videoHeight });
    easel.getContext('2d').drawImage(video, 0, 0);
    return easel.toDataURL('image/png').split(',')[1];
  }

  /** The content of each tile of a view as received, sampled for `ms`. */
  async function look(person, view, ms = 1500) {
    const bars = view.tiles.map(() => new Set());
    let colours = view.tiles.map(() => null);
    const end = performance.now() + ms;
    while (performance.now() < end) {
      const image = person.pixels();
      if (image) {
        colours = view.tiles.map((tile) => tileColour(image, tile, view.canvas));
        view.tiles.forEach((tile, i) => {
          const bar = barPosition(image, tile, view.canvas, colours[i]);
          if (bar !== null) bars[i].add(bar);
        });
      }
      await sleep(110);
    }
    return view.tiles.map((tile, i) => {
      const seen = colours[i] ? nearest(colours[i]) : { k: null, away: null };
      return { participant: tile.participant, seen: seen.k, away: seen.away, colour: colours[i], bars: bars[i].size };
    });
  }

  const SEGMENT = 32768; // 0.7 s; a longer one loses tones when the receiver stretches audio
  const WINDOW = Float32Array.from({ length: SEGMENT }, (_, i) => {
    const turn = (2 * Math.PI * i) / SEGMENT;
    // Blackman window, scaled like AnalyserNode.
    return (0.42 - 0.5 * Math.cos(turn) + 0.08 * Math.cos(2 * turn)) / SEGMENT;
  });

  /**
   * Powers at one frequency in half-overlapping segments (Goertzel), weakest first. A receiver that stretches or
   * conceals audio smears some of them, so an unwanted tone is measured in the median and a wanted one in the best
   * segment.
   */
  function powers(samples, hz) {
    const turn = 2 * Math.cos((2 * Math.PI * hz) / 48000);
    const segments = [];
    for (let start = 0; start + SEGMENT <= samples.length; start += SEGMENT / 2) {
      let [last, before] = [0, 0];
      for (let i = 0; i < SEGMENT; i += 1)
        [last, before] = [samples[start + i] * WINDOW[i] + turn * last - before, last];
      segments.push(last * last + before * before - turn * last * before);
    }
    return segments.sort((a, b) => a - b);
  }

  const best = (samples, hz) => powers(samples, hz).at(-1);
  const middle = (samples, hz) => {
    const all = powers(samples, hz);
    return all[Math.floor(all.length / 2)];
  };

  const decibels = (watts) => round(10 * Math.log10(Math.max(1e-20, watts)));

  /** The level of a wanted tone; its frequency may be slightly off because clocks differ. */
  function heardLevel(samples, hz) {
    return decibels(Math.max(...[-1.5, 0, 1.5].map((off) => best(samples, hz + off))));
  }

  /**
   * The level of an unwanted tone above the encoder's noise around it. Levels of more than 10 dB below that noise
   * cannot be measured.
   */
  function leakLevel(samples, hz) {
    const around = [-12, -9, -6, 6, 9, 12].map((off) => middle(samples, hz + off));
    const noise = around.reduce((sum, x) => sum + x, 0) / around.length;
    return decibels(Math.max(middle(samples, hz) - noise, noise / 10));
  }

  /** Levels in dB of wanted and unwanted tones, over eight seconds, because the noise around a tone is random. */
  async function listen(person, { expected, strangers }) {
    const samples = await person.record(8000);
    if (!samples || samples.length < SEGMENT) return null;
    const heard = expected.map((k) => ({ k, db: heardLevel(samples, TONES[k]) }));
    const unheard = strangers.map((k) => ({ k, db: leakLevel(samples, TONES[k]) }));
    return {
      heard,
      unheard,
      weakest_db: heard.length ? Math.min(...heard.map((t) => t.db)) : null,
      loudest_stranger_db: unheard.length ? Math.max(...unheard.map((t) => t.db)) : null,
    };
  }

  async function roomDocument(room) {
    const response = await fetch(`/v1/rooms/${room}`);
    if (!response.ok) throw new Error(`GET /v1/rooms/${room} was answered ${response.status}`);
    return response.json();
  }

  const program = (document) => document.views.find((view) => view.view === 'program');

  /** Waits until `test()` is true; resolves with false after the time limit. */
  async function until(test, ms, every = 50) {
    const end = performance.now() + ms;
    for (;;) {
      if (await test()) return true;
      if (performance.now() > end) return false;
      await sleep(every);
    }
  }

  /** Opens the events of a room; `log` has each event with its time. */
  function events(room) {
    const log = [];
    const socket = new WebSocket(`${location.origin.replace('http', 'ws')}/v1/rooms/${room}/events`);
    socket.onmessage = ({ data }) => log.push({ at: performance.now(), ...JSON.parse(data) });
    return { log, close: () => socket.close() };
  }

  globalThis.people = {
    COLOURS,
    TONES,
    Person,
    camera,
    microphone,
    sleep,
    look,
    shot,
    listen,
    roomDocument,
    program,
    until,
    events,
    nearest,
    tileColour,
    round,
    selectedCandidate,
  };
})();

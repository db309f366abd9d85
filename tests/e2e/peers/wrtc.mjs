// A peer of libwebrtc without a browser, by @roamhq/wrtc: sends a colour with a moving bar and a tone, and measures the
// decoded picture and sound that it receives. See session.mjs for its arguments.

import wrtc from '@roamhq/wrtc';
import { AMPLITUDE, PICTURE, RATE, barColour, readArguments, roomDocument, run } from './session.mjs';

const { RTCAudioSink, RTCAudioSource, RTCVideoSink, RTCVideoSource } = wrtc.nonstandard;
const { width, height, fps, barTurn } = PICTURE;
const SEGMENT = 32_768; // samples of a spectrum, as in people.js
const KEPT = 4 * SEGMENT; // samples of received sound
const EARLIER = 4; // pictures, half a second apart, that the newest is compared with

const peer = readArguments();

/** BT.601, limited range. */
function yuv([r, g, b]) {
  return [
    16 + 0.257 * r + 0.504 * g + 0.098 * b,
    128 - 0.148 * r - 0.291 * g + 0.439 * b,
    128 + 0.439 * r - 0.368 * g - 0.071 * b,
  ].map(Math.round);
}

function rgb(y, u, v) {
  const luma = 1.164 * (y - 16);
  return [luma + 1.596 * (v - 128), luma - 0.813 * (v - 128) - 0.392 * (u - 128), luma + 2.017 * (u - 128)].map((x) =>
    Math.min(255, Math.max(0, x)),
  );
}

/** An I420 picture of the colour with the bar where it is at this time, in seconds. */
function draw(seconds) {
  const data = new Uint8ClampedArray((width * height * 3) / 2);
  const [ground, bar] = [yuv(peer.colour), yuv(barColour(peer.colour))];
  const from = Math.floor(((seconds % barTurn) / barTurn) * width * 0.9);
  const plane = (start, columns, rows, part, scale) => {
    data.fill(ground[part], start, start + columns * rows);
    for (let row = 0; row < rows; row += 1) {
      data.fill(
        bar[part],
        start + row * columns + Math.floor(from / scale),
        start + row * columns + Math.floor((from + width / 10) / scale),
      );
    }
  };
  plane(0, width, height, 0, 1);
  plane(width * height, width / 2, height / 2, 1, 2);
  plane((width * height * 5) / 4, width / 2, height / 2, 2, 2);
  return { width, height, data };
}

function send(video, audio) {
  const start = performance.now();
  let [pictures, samples] = [0, 0];
  const tick = () => {
    const seconds = (performance.now() - start) / 1000;
    if (pictures / fps <= seconds) {
      video.onFrame(draw(seconds));
      pictures = Math.floor(seconds * fps) + 1;
    }
    for (; samples / RATE <= seconds; samples += RATE / 100) {
      const piece = Int16Array.from(
        { length: RATE / 100 },
        (_, i) => AMPLITUDE * 32767 * Math.sin((2 * Math.PI * peer.tone * (samples + i)) / RATE),
      );
      audio.onData({
        samples: piece,
        sampleRate: RATE,
        bitsPerSample: 16,
        channelCount: 1,
        numberOfFrames: piece.length,
      });
    }
  };
  return setInterval(tick, 5);
}

const received = {
  tracks: { audio: 0, video: 0 },
  frames: 0,
  now: null,
  earlier: [],
  keptAt: 0,
  sound: new Float64Array(KEPT),
};

function takePicture(frame) {
  received.frames += 1;
  received.now = frame;
  if (performance.now() - received.keptAt < 500) return;
  received.keptAt = performance.now();
  received.earlier = [...received.earlier, frame].slice(-EARLIER);
}

function takeSound({ samples, channelCount, numberOfFrames }) {
  received.sound.copyWithin(0, numberOfFrames);
  for (let i = 0; i < numberOfFrames; i += 1) {
    let sum = 0;
    for (let channel = 0; channel < channelCount; channel += 1) sum += samples[i * channelCount + channel];
    received.sound[KEPT - numberOfFrames + i] = sum / channelCount / 32768;
  }
}

/** The pixels of the middle of a tile, every fourth one. */
function area({ width: w, height: h, data }, tile, canvas) {
  const [sx, sy] = [w / canvas.width, h / canvas.height];
  const pixels = [];
  for (let y = Math.floor((tile.y + 0.25 * tile.height) * sy); y < (tile.y + 0.65 * tile.height) * sy; y += 4) {
    for (let x = Math.floor((tile.x + 0.2 * tile.width) * sx); x < (tile.x + 0.8 * tile.width) * sx; x += 4) {
      const chroma = Math.floor(y / 2) * (w / 2) + Math.floor(x / 2);
      pixels.push(rgb(data[y * w + x], data[w * h + chroma], data[(w * h * 5) / 4 + chroma]));
    }
  }
  return pixels;
}

const median = (values) => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)];

function tiles(view) {
  const { now, earlier } = received;
  if (!now) return [];
  return view.tiles.map((tile) => {
    const pixels = area(now, tile, view.canvas);
    const moves = earlier
      .filter((old) => old.width === now.width && old.height === now.height)
      .some((old) => {
        const before = area(old, tile, view.canvas);
        const change = pixels.flatMap((pixel, i) => pixel.map((x, part) => Math.abs(x - before[i][part])));
        return change.reduce((sum, x) => sum + x, 0) / change.length > 3;
      });
    return {
      participant: tile.participant,
      colour: [0, 1, 2].map((part) => median(pixels.map((pixel) => pixel[part]))),
      moves,
    };
  });
}

/** Level of each tone in dB: `heard`, and `leak`, the part above the noise around it; as peer.py measures them. */
function levels(tones) {
  const window = Float64Array.from({ length: SEGMENT }, (_, i) => {
    const turn = (2 * Math.PI * i) / (SEGMENT - 1);
    return 0.42 - 0.5 * Math.cos(turn) + 0.08 * Math.cos(2 * turn);
  });
  const starts = [];
  for (let start = 0; start + SEGMENT <= KEPT; start += SEGMENT / 2) starts.push(start);
  const segments = starts.map((start) => window.map((weight, i) => weight * received.sound[start + i]));
  // Goertzel's algorithm.
  const power = (bin) => {
    const turn = 2 * Math.cos((2 * Math.PI * bin) / SEGMENT);
    const powers = segments.map((segment) => {
      let [last, before] = [0, 0];
      for (const sample of segment) [last, before] = [sample + turn * last - before, last];
      return (last * last + before * before - turn * last * before) / SEGMENT ** 2;
    });
    return powers.reduce((sum, x) => sum + x, 0) / powers.length;
  };
  const range = (from, to) => Array.from({ length: to - from }, (_, i) => power(from + i));
  return tones.map((tone) => {
    const middle = Math.round((tone * SEGMENT) / RATE);
    const around = [...range(middle - 8, middle - 3), ...range(middle + 4, middle + 9)];
    const noise = around.reduce((sum, x) => sum + x, 0) / around.length;
    const here = range(middle - 1, middle + 2);
    return {
      heard: 10 * Math.log10(Math.max(...here) + 1e-20),
      leak: 10 * Math.log10(Math.max(here[1] - noise, noise / 10) + 1e-20),
    };
  });
}

const pc = new wrtc.RTCPeerConnection();
const [video, audio] = [new RTCVideoSource(), new RTCAudioSource()];
const tracks = [audio.createTrack(), video.createTrack()];
const stream = new wrtc.MediaStream(tracks);
for (const track of tracks) pc.addTrack(track, stream);
const sinks = [];
pc.ontrack = ({ track }) => {
  received.tracks[track.kind] += 1;
  const sink = track.kind === 'video' ? new RTCVideoSink(track) : new RTCAudioSink(track);
  if (track.kind === 'video') sink.onframe = ({ frame }) => takePicture(frame);
  else sink.ondata = takeSound;
  sinks.push(sink);
};
const sending = send(video, audio);
await run(peer, pc, async ({ tones }) => {
  const room = await roomDocument(peer);
  const view = room.views.find((v) => v.view === 'program');
  return { tracks: received.tracks, frames: received.frames, tiles: tiles(view), levels: levels(tones) };
});
clearInterval(sending);
for (const sink of sinks) sink.stop();
// The native module keeps threads that outlive its connections.
process.exit(0);

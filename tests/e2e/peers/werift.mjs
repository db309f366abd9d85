// A peer of werift, a WebRTC stack in TypeScript without codecs: ffmpeg encodes the colour, the moving bar and the
// tone, and werift sends its packets. Received packets are checked as RTP and depacketised. See session.mjs for its
// arguments.

import { spawn } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { MediaStreamTrack, RTCPeerConnection, RTCRtpCodecParameters, RtpPacket, Vp8RtpPayload } from 'werift';
import { AMPLITUDE, PICTURE, RATE, barColour, readArguments, run } from './session.mjs';

const { width, height, fps, barTurn } = PICTURE;
const KEYFRAME = [0x9d, 0x01, 0x2a]; // start code of a VP8 keyframe (RFC 6386 section 9.1)
const peer = readArguments();

const hex = (colour) => `0x${colour.map((part) => part.toString(16).padStart(2, '0')).join('')}`;

/** Passes packets that ffmpeg sends to a port of loopback to a track; resolves with the port. */
async function feed(track) {
  const socket = createSocket('udp4');
  socket.on('message', (packet) => track.writeRtp(packet));
  socket.bind(0, '127.0.0.1');
  await once(socket, 'listening');
  return { socket, port: socket.address().port };
}

const tracks = { audio: new MediaStreamTrack({ kind: 'audio' }), video: new MediaStreamTrack({ kind: 'video' }) };
const feeds = { audio: await feed(tracks.audio), video: await feed(tracks.video) };
const ffmpeg = spawn(
  'ffmpeg',
  [
    '-nostdin',
    '-v',
    'error',
    '-re',
    '-f',
    'lavfi',
    '-i',
    [
      `color=${hex(peer.colour)}:s=${width}x${height}:r=${fps}[ground]`,
      `color=${hex(barColour(peer.colour))}:s=${width / 10}x${height}:r=${fps}[bar]`,
      `[ground][bar]overlay=x='mod(t,${barTurn})/${barTurn}*${width * 0.9}',format=yuv420p`,
    ].join(';'),
    '-re',
    '-f',
    'lavfi',
    '-i',
    `aevalsrc='${AMPLITUDE}*sin(2*PI*${peer.tone}*t)':s=${RATE}`,
    '-map',
    '0:v',
    '-c:v',
    'libvpx',
    '-deadline',
    'realtime',
    '-cpu-used',
    '8',
    '-b:v',
    '400k',
    '-g',
    String(fps),
    '-f',
    'rtp',
    `rtp://127.0.0.1:${feeds.video.port}?pkt_size=1200`,
    '-map',
    '1:a',
    '-c:a',
    'libopus',
    '-b:a',
    '48k',
    '-f',
    'rtp',
    `rtp://127.0.0.1:${feeds.audio.port}`,
  ],
  { stdio: ['ignore', 'ignore', 'inherit'] },
);
process.on('exit', () => ffmpeg.kill());

const pc = new RTCPeerConnection({
  iceUseIpv6: false,
  iceAdditionalHostAddresses: ['127.0.0.1'],
  codecs: {
    audio: [new RTCRtpCodecParameters({ mimeType: 'audio/opus', clockRate: RATE, channels: 2 })],
    video: [
      new RTCRtpCodecParameters({
        mimeType: 'video/VP8',
        clockRate: 90_000,
        rtcpFeedback: [{ type: 'nack' }, { type: 'nack', parameter: 'pli' }, { type: 'goog-remb' }],
      }),
    ],
  },
});

/** What is counted of the packets of one kind. */
const received = {};
/** Sequence numbers modulo 2^16 (RFC 3550). */
const ahead = (sequence, of) => ((sequence - of + 0x8000) & 0xffff) - 0x8000;

function take(kind, packet) {
  const { payloadType, ssrc, sequenceNumber } = packet.header;
  const of = (received[kind] ??= {
    packets: 0,
    payload_types: [],
    ssrcs: [],
    missing: 0,
    frames: 0,
    keyframes: 0,
    sizes: [],
    last: (sequenceNumber - 1) & 0xffff,
  });
  of.packets += 1;
  if (!of.payload_types.includes(payloadType)) of.payload_types.push(payloadType);
  if (!of.ssrcs.includes(ssrc)) of.ssrcs.push(ssrc);
  const step = ahead(sequenceNumber, of.last);
  if (step > 0) {
    of.missing += step - 1;
    of.last = sequenceNumber;
  } else if (step < 0) of.missing -= 1; // late, or sent again
  if (kind !== 'video' || !packet.payload.length) return;
  const vp8 = Vp8RtpPayload.deSerialize(packet.payload);
  if (!vp8.isPartitionHead) return;
  of.frames += 1;
  if (!vp8.isKeyframe) return;
  const head = vp8.payload;
  if (KEYFRAME.some((byte, i) => head[3 + i] !== byte))
    throw new Error(`a VP8 keyframe begins with ${head.subarray(0, 10).toString('hex')}`);
  of.keyframes += 1;
  const size = `${head.readUInt16LE(6) & 0x3fff}x${head.readUInt16LE(8) & 0x3fff}`;
  if (!of.sizes.includes(size)) of.sizes.push(size);
}

const counted = { audio: 0, video: 0 };
const transceivers = ['audio', 'video'].map((kind) => pc.addTransceiver(tracks[kind], { direction: 'sendrecv' }));
pc.onTrack.subscribe((track) => {
  counted[track.kind] += 1;
  track.onReceiveRtp.subscribe((packet) =>
    take(track.kind, packet instanceof RtpPacket ? packet : RtpPacket.deSerialize(packet)),
  );
});

await run(peer, pc, async () => {
  const negotiated = Object.fromEntries(
    transceivers.map(({ kind, codecs }) => [kind, codecs.map(({ payloadType }) => payloadType)]),
  );
  const rtp = Object.fromEntries(Object.entries(received).map(([kind, { last: _, ...of }]) => [kind, of]));
  return { tracks: counted, negotiated, rtp, sending: ffmpeg.exitCode === null };
});
ffmpeg.kill();
for (const { socket } of Object.values(feeds)) socket.close();
process.exit(0);

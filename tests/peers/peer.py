"""A peer that is no browser: joins a room, sends a colour and a tone, and tells what comes back.

    peer.py call|watch|publish --url http://127.0.0.1:8080 --room R --name N [--colour 30,160,50] [--tone 451] [--unnamed]

call:    aiortc, both ways, by POST to /v1/rooms/R/participants
watch:   aiortc, receives only, by POST to /whep/R
publish: ffmpeg's WHIP muxer through PyAV, sends only, to /whip/R

With --unnamed the offer says nothing of SSRCs, as many hand-made ones do not.

Prints `{"joined": ID}` (null for `publish`, which does not learn it). Each line on standard input asks for one more line:
what is received now. The end of standard input makes it leave.
"""

import argparse
import asyncio
import collections
import contextlib
import fractions
import json
import sys
import time
import urllib.request

import av
import numpy as np

RATE = 48_000
WIDTH, HEIGHT, FPS = 320, 180, 15
BAR_TURN = 2.4  # seconds for the bar to go across
SPECTRUM = 32_768  # samples


def picture(colour, seconds):
    """A frame of one colour with a bar that goes across."""
    image = np.empty((HEIGHT, WIDTH, 3), np.uint8)
    image[:] = colour
    at = int((seconds % BAR_TURN) / BAR_TURN * WIDTH * 0.9)
    image[:, at : at + WIDTH // 10] = 0 if np.dot(colour, (0.3, 0.59, 0.11)) > 110 else 255
    return av.VideoFrame.from_ndarray(image, format="rgb24")


def sound(tone, first, count, channels):
    """Samples `first` to `first + count` of a sine, as 16 bit."""
    wave = 0.06 * 32767 * np.sin(2 * np.pi * tone * np.arange(first, first + count) / RATE)
    frame = av.AudioFrame.from_ndarray(
        np.repeat(wave.astype(np.int16), channels)[np.newaxis], format="s16", layout="stereo" if channels == 2 else "mono"
    )
    frame.sample_rate = RATE
    frame.pts = first
    frame.time_base = fractions.Fraction(1, RATE)
    return frame


def get(url):
    with urllib.request.urlopen(url, timeout=10) as response:
        return json.load(response)


def say(value):
    print(json.dumps(value), flush=True)


class Received:
    """What came last: some pictures half a second apart, and some seconds of sound."""

    def __init__(self):
        self.frames = 0
        self.now = None
        self.earlier = collections.deque(maxlen=4)
        self.kept_at = 0.0
        self.samples = np.zeros(4 * SPECTRUM)
        self.tracks = {"video": 0, "audio": 0}

    def take_picture(self, frame):
        self.frames += 1
        if time.monotonic() - self.kept_at > 0.5:
            self.earlier.append(frame)
            self.kept_at = time.monotonic()
        self.now = frame

    def take_sound(self, frame):
        mono = frame.to_ndarray().reshape(-1, len(frame.layout.channels)).mean(axis=1) / 32768
        self.samples = np.concatenate([self.samples, mono])[-4 * SPECTRUM :]

    def tiles(self, view):
        if self.now is None:
            return []
        now, *earlier = (f.to_ndarray(format="rgb24").astype(int) for f in (self.now, *self.earlier))
        x_scale, y_scale = now.shape[1] / view["canvas"]["width"], now.shape[0] / view["canvas"]["height"]
        seen = []
        for tile in view["tiles"]:
            left, top = tile["x"] * x_scale, tile["y"] * y_scale
            width, height = tile["width"] * x_scale, tile["height"] * y_scale
            area = np.s_[int(top + 0.25 * height) : int(top + 0.65 * height), int(left + 0.2 * width) : int(left + 0.8 * width)]
            changed = any(old.shape == now.shape and np.abs(now[area] - old[area]).mean() > 3 for old in earlier)
            colour = np.median(now[area].reshape(-1, 3), axis=0)
            seen.append({"participant": tile["participant"], "colour": colour.tolist(), "moves": bool(changed)})
        return seen

    def levels(self, tones):
        """Level of each tone in dB: `heard`, and `leak`, what stands out of the noise around it, as people.js has it."""
        starts = range(0, 3 * SPECTRUM + 1, SPECTRUM // 2)
        segments = [self.samples[start : start + SPECTRUM] * np.blackman(SPECTRUM) for start in starts]
        power = np.mean([np.abs(np.fft.rfft(segment) / SPECTRUM) ** 2 for segment in segments], axis=0)
        levels = []
        for tone in tones:
            middle = round(tone * SPECTRUM / RATE)
            noise = np.mean(np.concatenate([power[middle - 8 : middle - 3], power[middle + 4 : middle + 9]]))
            here = power[middle - 1 : middle + 2]
            leak = max(power[middle] - noise, noise / 10)
            levels.append({"heard": 10 * np.log10(here.max() + 1e-20), "leak": 10 * np.log10(leak + 1e-20)})
        return levels


async def questions():
    """Yields each line of standard input."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        yield json.loads(line)


async def webrtc(args):
    import aioice.ice
    from aiortc import RTCPeerConnection, RTCSessionDescription
    from aiortc.mediastreams import AudioStreamTrack, MediaStreamError, VideoStreamTrack

    # aioice leaves loopback out; here nothing else is wanted.
    aioice.ice.get_host_addresses = lambda use_ipv4, use_ipv6: ["127.0.0.1"]

    class Camera(VideoStreamTrack):
        async def recv(self):
            pts, time_base = await self.next_timestamp()
            frame = picture(args.colour, float(pts * time_base))
            frame.pts, frame.time_base = pts, time_base
            return frame

    class Microphone(AudioStreamTrack):
        position = 0
        start = None

        async def recv(self):
            self.start = self.start or time.monotonic()
            await asyncio.sleep(max(0, self.start + self.position / RATE - time.monotonic()))
            frame = sound(args.tone, self.position, RATE // 50, 1)
            self.position += frame.samples
            return frame

    received = Received()
    peer = RTCPeerConnection()
    readers = []

    async def read(track):
        take = received.take_picture if track.kind == "video" else received.take_sound
        with contextlib.suppress(MediaStreamError):  # the track has ended
            while True:
                take(await track.recv())

    @peer.on("track")
    def on_track(track):
        received.tracks[track.kind] += 1
        readers.append(asyncio.ensure_future(read(track)))

    if args.mode == "call":
        peer.addTrack(Microphone())
        peer.addTrack(Camera())
        url = f"{args.url}/v1/rooms/{args.room}/participants"
    else:
        peer.addTransceiver("audio", direction="recvonly")
        peer.addTransceiver("video", direction="recvonly")
        url = f"{args.url}/whep/{args.room}"
    await peer.setLocalDescription(await peer.createOffer())
    offer = peer.localDescription.sdp.splitlines(keepends=True)
    if args.unnamed:
        offer = [line for line in offer if not line.startswith("a=ssrc")]
    request = urllib.request.Request(
        f"{url}?name={args.name}", "".join(offer).encode(), {"Content-Type": "application/sdp"}, method="POST"
    )
    response = await asyncio.to_thread(urllib.request.urlopen, request, timeout=10)
    answer = response.read().decode()
    await peer.setRemoteDescription(RTCSessionDescription(answer, "answer"))
    say({"joined": response.headers["Commingle-Participant"]})

    async for question in questions():
        room = await asyncio.to_thread(get, f"{args.url}/v1/rooms/{args.room}")
        view = next(view for view in room["views"] if view["view"] == "program")
        say(
            {
                "tracks": received.tracks,
                "frames": received.frames,
                "tiles": received.tiles(view),
                "levels": received.levels(question["tones"]),
                "state": peer.connectionState,
            }
        )
    location = response.headers["Location"]
    session = location if location.startswith("http") else args.url + location
    delete = urllib.request.Request(session, method="DELETE")
    await asyncio.to_thread(urllib.request.urlopen, delete, timeout=10)
    await peer.close()


def publish(args, stopped):
    container = av.open(f"{args.url}/whip/{args.room}?name={args.name}", "w", format="whip")
    camera = container.add_stream("libx264", rate=FPS)
    camera.width, camera.height, camera.pix_fmt = WIDTH, HEIGHT, "yuv420p"
    camera.options = {"preset": "ultrafast", "tune": "zerolatency", "profile": "baseline", "g": str(FPS), "bf": "0"}
    microphone = container.add_stream("libopus", rate=RATE, layout="stereo")
    microphone.options = {"application": "audio", "frame_duration": "20"}
    start = time.monotonic()
    frames = samples = 0
    joined = False
    while not stopped():
        now = time.monotonic() - start
        while frames / FPS <= now:
            frame = picture(args.colour, frames / FPS)
            frame.pts, frame.time_base = frames, fractions.Fraction(1, FPS)
            for packet in camera.encode(frame):
                container.mux(packet)
            frames += 1
        while samples / RATE <= now:
            frame = sound(args.tone, samples, RATE // 50, 2)
            for packet in microphone.encode(frame):
                container.mux(packet)
            samples += RATE // 50
        if not joined:
            joined = True
            say({"joined": None})
        time.sleep(0.005)
    container.close()


async def publishing(args):
    ended = asyncio.Event()
    sending = asyncio.ensure_future(asyncio.to_thread(publish, args, ended.is_set))

    async def answer():
        async for _ in questions():
            say({"sending": not sending.done()})

    asking = asyncio.ensure_future(answer())
    await asyncio.wait([sending, asking], return_when=asyncio.FIRST_COMPLETED)
    ended.set()
    await sending


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mode", choices=["call", "watch", "publish"])
    parser.add_argument("--url", default="http://127.0.0.1:8080")
    parser.add_argument("--room", required=True)
    parser.add_argument("--name", default="peer")
    parser.add_argument("--colour", type=lambda text: [int(part) for part in text.split(",")], default=[30, 160, 50])
    parser.add_argument("--tone", type=float, default=451)
    parser.add_argument("--unnamed", action="store_true")
    args = parser.parse_args()
    asyncio.run(publishing(args) if args.mode == "publish" else webrtc(args))


main()

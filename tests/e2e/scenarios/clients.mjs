// Third-party WHIP and WHEP clients from npm, unmodified, in one page of Chromium.

import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

/** The clients bundled as one script, which sets `globalThis.clients`. */
async function bundled() {
  const contents = `
    import { WHIPClient as EyevinnWhip } from '@eyevinn/whip-web-client';
    import { WebRTCPlayer } from '@eyevinn/webrtc-player';
    import { WHIPClient } from 'whip-whep/whip.js';
    import { WHEPClient } from 'whip-whep/whep.js';
    globalThis.clients = { EyevinnWhip, WebRTCPlayer, WHIPClient, WHEPClient };`;
  const resolveDir = fileURLToPath(new URL('..', import.meta.url));
  const { outputFiles } = await build({
    stdin: { contents, resolveDir },
    bundle: true,
    format: 'iife',
    write: false,
    logLevel: 'error',
  });
  return outputFiles[0].text;
}

/** Two clients publish and two watch. Measures what the two receive, and what is left after all have ended. */
export async function third_party({ page: open, options }) {
  const page = await open();
  await page.evaluate(await bundled());
  return page.evaluate(async ({ room }) => {
    const { EyevinnWhip, WebRTCPlayer, WHIPClient, WHEPClient } = clients;
    const { Person, camera, microphone, until, program, roomDocument, look, listen } = people;
    const url = (door, name) => new URL(`/${door}/${room}?name=${name}`, location.href).toString();
    const answered = [];
    const straight = globalThis.fetch;
    globalThis.fetch = async (resource, init = {}) => {
      const response = await straight(resource, init);
      const { pathname } = new URL(resource, location.href);
      const shownPath = pathname.replace(/[0-9a-f]{32}/, 'SECRET').replace(room, 'ROOM');
      answered.push(`${init.method ?? 'GET'} ${shownPath} ${response.status}`);
      if (init.method !== 'PATCH' || response.status !== 200) return response;
      // whip-whep builds invalid SDP from several candidates in the answer to an ICE restart, so it gets only the
      // first.
      let candidates = 0;
      const fragment = (await response.text()).replace(/^a=candidate:.*\r\n/gm, (line) =>
        (candidates += 1) === 1 ? line : '',
      );
      return new Response(fragment, { status: 200, headers: response.headers });
    };
    const seen = async (names) =>
      until(async () => {
        const document = await roomDocument(room).catch(() => null);
        return (
          document &&
          names.every((name) => document.participants.some((p) => p.name === name)) &&
          program(document).tiles.length === 2
        );
      }, 20_000);
    const sources = async (k) => [camera(k, { width: 320, height: 180, fps: 15 }).track, (await microphone(k)).track];

    const eyevinn = new EyevinnWhip({ endpoint: url('whip', 'eyevinn'), opts: { iceServers: [] } });
    await eyevinn.setIceServersFromEndpoint();
    await eyevinn.ingest(new MediaStream(await sources(0)));
    const medooze = new WHIPClient();
    const sending = new RTCPeerConnection({ bundlePolicy: 'max-bundle' });
    for (const track of await sources(1)) sending.addTransceiver(track, { direction: 'sendonly' });
    await medooze.publish(sending, url('whip', 'medooze'));
    const published = await seen(['eyevinn', 'medooze']);

    const video = () => {
      const element = Object.assign(document.createElement('video'), {
        muted: true,
        autoplay: true,
        playsInline: true,
      });
      element.style.cssText = 'width:160px;height:90px';
      document.body.append(element);
      return element;
    };
    const player = new WebRTCPlayer({ video: video(), type: 'whep', iceServers: [] });
    await player.load(new URL(url('whep', 'player')));
    const receiving = new RTCPeerConnection({ bundlePolicy: 'max-bundle' });
    const screen = video();
    const stream = new MediaStream();
    receiving.ontrack = ({ track }) => {
      stream.addTrack(track);
      screen.srcObject = stream;
    };
    for (const kind of ['audio', 'video']) receiving.addTransceiver(kind, { direction: 'recvonly' });
    const viewer = new WHEPClient();
    await viewer.view(receiving, url('whep', 'viewer'));

    const watches = async (element) => {
      const watcher = Object.assign(Object.create(Person.prototype), { video: element, stream: element.srcObject });
      const playing = await until(() => element.videoWidth > 0, 15_000);
      const { participants, ...document } = await roomDocument(room);
      const tiles = await look(watcher, program(document));
      const names = Object.fromEntries(participants.map((p) => [p.id, p.name]));
      const sound = await listen(Object.assign(watcher, { stream: element.srcObject }), {
        expected: [0, 1],
        strangers: [2],
      });
      return { playing, tiles: tiles.map((t) => ({ name: names[t.participant], ...t })), sound };
    };
    const [byPlayer, byViewer] = await Promise.all([watches(document.querySelectorAll('video')[0]), watches(screen)]);
    const events = viewer.eventSource?.readyState;

    // The publisher restarts ICE with its library.
    const server = () => sending.remoteDescription.sdp.match(/a=ice-ufrag:(.*)\r\n/)[1];
    const before = server();
    await medooze.restart();
    const restarted = await until(() => sending.iceConnectionState === 'connected' && server() !== before, 10_000);
    const frames = screen.getVideoPlaybackQuality().totalVideoFrames;
    const goesOn = await until(() => screen.getVideoPlaybackQuality().totalVideoFrames > frames + 10, 10_000);

    await eyevinn.destroy();
    await medooze.stop();
    await player.unload();
    await viewer.stop();
    const empty = await until(async () => !(await roomDocument(room).catch(() => null))?.participants.length, 10_000);
    return { published, player: byPlayer, viewer: byViewer, events, restarted, goes_on: goesOn, empty, answered };
  }, options);
}

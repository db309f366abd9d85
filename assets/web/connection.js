// connection.js: one RTCPeerConnection, and its session at the server (docs/api.md). Used by commingle.js.
//
// Owns: joining by one offer, candidates that trickle, ICE restarts for as long as it may take to reach the server, and offers when
// a screen comes or goes. Does not know: the room, and what is to be done when it is lost.

import { JoinError, refusal, unreachable } from './server.js';
import { iceCredentials, iceServersOf, markScreen, restartedAnswer, scaleFor, trickleFragment } from './wire.js';

const RESTART_AFTER = 1000; // ms of a connection that is silent, before ICE restarts
const RESTART_ANSWERED = 3000; // ms that the answer to an ICE restart may take: by a network that is gone it never comes
const RESTARTS_FOR = 20_000; // ms in which ICE restarts are tried: the server keeps a silent session a little longer
const CONNECT_WITHIN = 10_000; // ms that an answer may take, and then a connection
const RELAY_AFTER = 2000; // ms until it is connected, before the server's TURN servers are tried as well
const CANDIDATE_BATCH = 30; // ms to collect candidates into one PATCH
const FRAGMENT = 'application/trickle-ice-sdpfrag';

const isTurn = ({ urls }) => /^turns?:/.test(urls);

/**
 * Told: `track(track)` for each track that comes, `changed()` when its state does, `restarted()` when ICE has found the server
 * again, `lost(error)` when it is of no use any more.
 */
export class Connection {
  /** The session URL, and one's participant id where the server tells it; null before it has answered. */
  location = null;
  participant = null;
  /** The ICE servers that the server has named. */
  named = [];

  #server;
  #patience;
  #told;
  #ice;
  #peer;
  #transceivers = {};
  #screen;
  #screenTransceiver = null;
  #turn = Promise.resolve(); // offers go one after the other
  #answer = '';
  #etag = null;
  #candidates = [];
  #mayTrickle = false;
  #gathered = false;
  #restarting = false;
  #carried = false; // it was connected once
  #timers = { silent: 0, connect: 0, relay: 0, batch: 0 };

  /**
   * `ice`: `{ own, named, policy }`, the ICE servers given and those that the server named before. `stream` has the tracks that are
   * sent at first, `wants` says of which kinds there may be some later; `screen` is a track or null.
   */
  constructor({ server, patience, told, ice, stream, wants, screen }) {
    this.#server = server;
    this.#patience = patience;
    this.#told = told;
    this.#ice = ice;
    this.#screen = screen;
    const iceServers = [...ice.own, ...ice.named];
    const peer = new RTCPeerConnection({ bundlePolicy: 'max-bundle', iceTransportPolicy: ice.policy, iceServers });
    this.#peer = peer;
    peer.onicecandidate = ({ candidate }) => this.#gather(candidate);
    peer.ontrack = ({ track }) => told.track(track);
    peer.onconnectionstatechange = () => this.#changed();
    for (const kind of ['audio', 'video']) {
      const track = stream.getTracks().find((t) => t.kind === kind);
      /** @type {RTCRtpTransceiverInit} */
      const sends = { direction: 'sendrecv', streams: [stream] };
      this.#transceivers[kind] = peer.addTransceiver(track ?? kind, wants[kind] ? sends : { direction: 'recvonly' });
    }
    this.#fitScreen();
  }

  /** The RTCPeerConnection; null when it is over. */
  get peer() {
    return this.#peer;
  }

  get connected() {
    return this.#peer?.connectionState === 'connected';
  }

  /** The tracks of the mix. */
  get received() {
    return this.#peer ? Object.values(this.#transceivers).map(({ receiver }) => receiver.track) : [];
  }

  /** Joins at this URL; `signal` gives up. Then there is a session, whose answer `accept()` takes. */
  async offer(url, signal) {
    const peer = this.#peer;
    const giveUp = new AbortController();
    signal.addEventListener('abort', () => giveUp.abort(), { once: true });
    this.#arm('connect', CONNECT_WITHIN, () => giveUp.abort());
    await peer.setLocalDescription(await peer.createOffer());
    if (!this.#peer) throw new JoinError('Left while joining.', 0, {});
    const response = await this.#server.fetch(url, {
      method: 'POST',
      headers: { 'Content-Type': 'application/sdp', Accept: 'application/sdp' },
      body: this.#offered(),
      signal: giveUp.signal,
    });
    if (!response.ok) throw await refusal(response);
    this.#answer = await response.text();
    this.#etag = response.headers.get('ETag');
    this.participant = response.headers.get('Commingle-Participant');
    this.named = iceServersOf(response.headers.get('Link'));
    this.location = new URL(response.headers.get('Location'), response.url).href;
    this.#connectsSoon();
  }

  async accept() {
    const { own, named: before, policy } = this.#ice;
    if (this.named.length) this.#peer.setConfiguration({ ...this.#peer.getConfiguration(), iceServers: [...own, ...this.named] });
    await this.#inTurn(() => this.#peer.setRemoteDescription({ type: 'answer', sdp: this.#answer }));
    this.#mayTrickle = true;
    this.#trickle();
    // Most networks need no relay: joining does not wait for one, and where nothing connects it is asked for by an ICE restart.
    if (before.some(isTurn) || !this.named.some(isTurn)) return;
    this.#arm('relay', policy === 'relay' ? 0 : RELAY_AFTER, () => this.restartIce('connected'));
  }

  /** Sends this track of its kind, or none. */
  async send(kind, track) {
    if (this.#peer) await this.#transceivers[kind].sender.replaceTrack(track);
  }

  /** Sends the camera no larger than the tile it has. */
  async fitCamera(tile) {
    if (!this.#peer) return;
    const { sender } = this.#transceivers.video;
    if (!sender.track) return;
    const { width, height } = sender.track.getSettings();
    const parameters = sender.getParameters();
    if (!parameters.encodings?.length) return;
    const scaleResolutionDownBy = scaleFor(width ?? 0, height ?? 0, tile);
    const now = parameters.encodings[0];
    if (Math.abs((now.scaleResolutionDownBy ?? 1) - scaleResolutionDownBy) < 0.02) return;
    Object.assign(now, { scaleResolutionDownBy });
    await sender.setParameters(parameters).catch(() => {}); // overtaken by a newer layout: the next call sets it
  }

  /** Sends this screen, or none. */
  async setScreen(track) {
    this.#screen = track;
    try {
      if (track && this.#screenTransceiver) await this.#screenTransceiver.sender.replaceTrack(track);
      else await this.#renegotiate();
    } catch (error) {
      this.#screen = null;
      throw error;
    }
  }

  /** Waits until the picture moves again, a second and a half at most. */
  async moves() {
    const frames = async () => [...((await this.#peer?.getStats())?.values() ?? [])].find((s) => s.type === 'inbound-rtp' && s.kind === 'video')?.framesDecoded ?? 0;
    const before = await frames();
    for (let n = 0; n < 30 && this.#peer && (await frames()) <= before; n += 1) await new Promise((resolve) => { setTimeout(resolve, 50); });
  }

  /** Looks for another way, as often as it takes to reach the server, unless it is in the state `unless` by then. */
  async restartIce(unless) {
    if (!this.location || !this.#peer || this.#restarting) return;
    this.#restarting = true;
    const end = performance.now() + RESTARTS_FOR;
    try {
      await this.#inTurn(async () => {
        while (this.#peer && this.#peer.connectionState !== unless && !(await this.#offerIce(this.#peer))) {
          if (performance.now() > end) throw unreachable();
          await this.#patience.pause();
        }
      });
    } catch (error) {
      if (this.#peer) this.#told.lost(error);
    } finally {
      this.#restarting = false;
    }
  }

  /** Over, without a word to the server. */
  close() {
    for (const timer of Object.values(this.#timers)) clearTimeout(timer);
    const peer = this.#peer;
    this.#peer = null;
    this.#mayTrickle = false;
    peer.onicecandidate = peer.ontrack = peer.onconnectionstatechange = null;
    peer.close();
  }

  #connectsSoon() {
    this.#arm('connect', CONNECT_WITHIN, () => !this.connected && this.#told.lost());
  }

  #changed() {
    const { connectionState, iceConnectionState } = this.#peer;
    clearTimeout(this.#timers.silent);
    if (connectionState === 'connected') {
      clearTimeout(this.#timers.connect);
      clearTimeout(this.#timers.relay);
      this.#carried = true;
      this.#patience.reset();
    }
    if (connectionState === 'disconnected') this.#arm('silent', RESTART_AFTER, () => this.restartIce('connected'));
    if (connectionState === 'failed' && iceConnectionState === 'failed' && this.#carried) {
      this.#carried = false;
      this.restartIce('connected'); // its network is gone: by another one the session goes on
    } else if (connectionState === 'failed' || connectionState === 'closed') {
      this.#told.lost();
    }
    this.#told.changed();
  }

  /** One try of an ICE restart; false when the server was not reached, or not in time. */
  async #offerIce(peer) {
    this.#mayTrickle = this.#gathered = false;
    this.#candidates = [];
    clearTimeout(this.#timers.connect);
    await peer.setLocalDescription(await peer.createOffer({ iceRestart: true }));
    const body = trickleFragment(peer.localDescription.sdp, []);
    const headers = { 'Content-Type': FRAGMENT, 'If-Match': '*' };
    let response;
    let fragment;
    try {
      response = await this.#server.fetch(this.location, { method: 'PATCH', headers, body, signal: AbortSignal.timeout(RESTART_ANSWERED) });
      if (response.ok) fragment = await response.text();
    } catch {
      return false;
    }
    if (!response.ok) throw await refusal(response);
    if (!iceCredentials(fragment).ufrag) throw new JoinError('No ICE credentials in the answer to an ICE restart.', 502, {});
    if (!this.#peer) return true;
    this.#answer = restartedAnswer(this.#answer, fragment);
    this.#etag = response.headers.get('ETag') ?? this.#etag;
    await peer.setRemoteDescription({ type: 'answer', sdp: this.#answer });
    this.#mayTrickle = true;
    this.#patience.reset();
    this.#connectsSoon();
    this.#told.restarted();
    this.#trickle();
    return true;
  }

  /** Brings the screen's transceiver to whether there is one to send. */
  #fitScreen() {
    if (this.#screen && !this.#screenTransceiver) {
      this.#screenTransceiver = this.#peer.addTransceiver(this.#screen, { direction: 'sendonly', streams: [new MediaStream([this.#screen])] });
    } else if (!this.#screen && this.#screenTransceiver) {
      this.#screenTransceiver.stop();
      this.#screenTransceiver = null;
    }
  }

  /** The offer as the server gets it. */
  #offered() {
    const { sdp } = this.#peer.localDescription;
    return this.#screenTransceiver ? markScreen(sdp, this.#screenTransceiver.mid) : sdp;
  }

  /** A new offer on the same connection, as often as the screen comes or goes. */
  #renegotiate() {
    return this.#inTurn(async () => {
      const peer = this.#peer;
      if (!peer || !this.#mayTrickle) return; // not joined at present: the next join offers it
      this.#fitScreen();
      try {
        await peer.setLocalDescription();
        const headers = { 'Content-Type': 'application/sdp' };
        const response = await this.#server.fetch(this.location, { method: 'PATCH', headers, body: this.#offered() });
        if (!response.ok) throw await refusal(response);
        const answer = await response.text();
        if (!this.#peer) return;
        this.#answer = answer;
        this.#etag = response.headers.get('ETag') ?? this.#etag;
        await peer.setRemoteDescription({ type: 'answer', sdp: answer });
      } catch (error) {
        if (!this.#peer) return; // overtaken by a new connection, which has offered it
        if (peer.signalingState === 'have-local-offer') await peer.setLocalDescription({ type: 'rollback' });
        this.#screenTransceiver = null; // a rollback takes back a transceiver that only its offer had
        throw error;
      }
    });
  }

  /** One exchange of offer and answer at a time. */
  #inTurn(exchange) {
    const turn = this.#turn.then(exchange);
    this.#turn = turn.catch(() => {});
    return turn;
  }

  #gather(candidate) {
    if (candidate?.candidate) this.#candidates.push(candidate);
    else if (!candidate) this.#gathered = true;
    clearTimeout(this.#timers.batch);
    if (this.#mayTrickle) this.#arm('batch', CANDIDATE_BATCH, () => this.#trickle());
  }

  async #trickle() {
    const done = this.#gathered;
    const candidates = this.#candidates.splice(0);
    if (!this.#mayTrickle || (!candidates.length && !done)) return;
    this.#gathered = false;
    const body = trickleFragment(this.#peer.localDescription.sdp, candidates, done);
    const headers = { 'Content-Type': FRAGMENT, ...(this.#etag && { 'If-Match': this.#etag }) };
    await this.#server.fetch(this.location, { method: 'PATCH', headers, body }).catch(() => {}); // ICE itself tells whether it mattered
  }

  #arm(name, delay, then) {
    clearTimeout(this.#timers[name]);
    this.#timers[name] = setTimeout(then, delay);
  }
}

// connection.js: one RTCPeerConnection, and its session at the server (docs/api.md). Used by commingle.js.
//
// Owns: the join by one offer, trickle ICE, ICE restarts with retries, and renegotiation for a screen. Does not know:
// the room, and what follows after a lost connection.

import { ENCODINGS, encodingFor, fitEncodings } from './layers.js';
import { JoinError, refusal, unreachable } from './server.js';
import { iceCredentials, iceServersOf, markScreen, restartedAnswer, scaleFor, trickleFragment } from './wire.js';

const RESTART_AFTER = 1000; // ms in the state `disconnected` before an ICE restart
const RESTART_ANSWERED = 3000; // ms, time limit of the response to an ICE restart; a lost network never delivers it
const RESTARTS_FOR = 20_000; // ms during which ICE restarts are retried; the server keeps the session a little longer
const CONNECT_WITHIN = 10_000; // ms, time limit of the answer, and then of the connection
const RELAY_AFTER = 2000; // ms without a connection before the server's TURN servers are used
const KEPT = 8000; // ms during which the encoding before is sent, if the server does not decode the next one sooner
const CANDIDATE_BATCH = 30; // ms during which candidates are collected for one PATCH
const FRAGMENT = 'application/trickle-ice-sdpfrag';

const isTurn = ({ urls }) => /^turns?:/.test(urls);

/**
 * Callbacks: `track(track)` for each received track, `changed()` after a state change, `restarted()` after an ICE
 * restart, `lost(error)` if the connection cannot be used any more.
 */
export class Connection {
  /** The session URL and the own participant id; null before the answer. */
  location = null;
  participant = null;
  /** The ICE servers announced by the server. */
  named = [];

  #server;
  #backoff;
  #callbacks;
  #ice;
  #peer;
  #transceivers = {};
  #screen;
  #screenTransceiver = null;
  #fit = null; // what the camera is sent for
  #fitting = Promise.resolve(); // parameters are set one after the other
  #encoding = -1; // the index of the encoding that is sent
  #keptUntil = 0; // until when the encoding before is sent
  #turn = Promise.resolve(); // offers are sent one after the other
  #answer = '';
  #etag = null;
  #candidates = [];
  #mayTrickle = false;
  #gathered = false;
  #restarting = false;
  #carried = false; // the connection was established once
  #timers = { silent: 0, connect: 0, relay: 0, batch: 0, kept: 0 };

  /**
   * `ice` is `{ own, named, policy }`: the configured ICE servers and those that the server announced before. `stream`
   * has the first tracks to send, `kinds` the kinds to negotiate for sending; `screen` is a track or null. With
   * `simulcast` the camera can be sent in several encodings.
   */
  constructor({ server, backoff, callbacks, ice, stream, kinds, screen, simulcast }) {
    this.#server = server;
    this.#backoff = backoff;
    this.#callbacks = callbacks;
    this.#ice = ice;
    this.#screen = screen;
    const iceServers = [...ice.own, ...ice.named];
    const peer = new RTCPeerConnection({ bundlePolicy: 'max-bundle', iceTransportPolicy: ice.policy, iceServers });
    this.#peer = peer;
    peer.onicecandidate = ({ candidate }) => this.#gather(candidate);
    peer.ontrack = ({ track }) => callbacks.track(track);
    peer.onconnectionstatechange = () => this.#changed();
    for (const kind of ['audio', 'video']) {
      const track = stream.getTracks().find((t) => t.kind === kind);
      /** @type {RTCRtpTransceiverInit} */
      const sends = { direction: 'sendrecv', streams: [stream] };
      if (simulcast && kind === 'video') sends.sendEncodings = ENCODINGS;
      this.#transceivers[kind] = peer.addTransceiver(track ?? kind, kinds[kind] ? sends : { direction: 'recvonly' });
    }
    this.#fitScreen();
  }

  /** The RTCPeerConnection; null after close(). */
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

  /** Joins at this URL; `signal` aborts. Afterwards there is a session, and `accept()` applies its answer. */
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
    if (this.named.length)
      this.#peer.setConfiguration({ ...this.#peer.getConfiguration(), iceServers: [...own, ...this.named] });
    await this.#inTurn(() => this.#peer.setRemoteDescription({ type: 'answer', sdp: this.#answer }));
    this.#mayTrickle = true;
    this.#trickle();
    // Most networks need no relay, so the join does not wait for one. If nothing connects, an ICE restart uses TURN.
    if (before.some(isTurn) || !this.named.some(isTurn)) return;
    this.#arm('relay', policy === 'relay' ? 0 : RELAY_AFTER, () => this.restartIce('connected'));
  }

  /** Sends this track, or nothing, of a kind. */
  async send(kind, track) {
    if (this.#peer) await this.#transceivers[kind].sender.replaceTrack(track);
  }

  /**
   * Sends the camera no larger than `size`, in a room of so many tiles. Of several encodings only the one for this size
   * is sent, and the one that the server decodes (`decoded`, its RID) until it decodes the other one.
   */
  fitCamera(size, { tiles, decoded }) {
    this.#fit = { size, tiles, decoded };
    this.#fitting = this.#fitting.then(() => this.#applyFit());
    return this.#fitting;
  }

  async #applyFit() {
    if (!this.#peer || !this.#fit) return;
    const { sender } = this.#transceivers.video;
    if (!sender.track) return;
    const { size, tiles, decoded } = this.#fit;
    const { width, height } = sender.track.getSettings();
    const parameters = sender.getParameters();
    const { encodings } = parameters;
    if (!encodings?.length) return;
    const scale = scaleFor(width ?? 0, height ?? 0, size);
    const index = encodingFor(scale, encodings.length, tiles);
    if (index !== this.#encoding) {
      this.#encoding = index;
      this.#keptUntil = performance.now() + KEPT;
      this.#arm('kept', KEPT, () => this.fitCamera(this.#fit.size, this.#fit));
    }
    const kept = performance.now() < this.#keptUntil ? decoded : undefined;
    const next = fitEncodings(encodings, { index, scale, kept });
    if (!next) return;
    parameters.encodings = next;
    await sender.setParameters(parameters).catch(() => {}); // a newer layout sets it again
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

  /** Waits until a new frame is decoded, at most 1.5 seconds. */
  async moves() {
    const frames = async () =>
      [...((await this.#peer?.getStats())?.values() ?? [])].find((s) => s.type === 'inbound-rtp' && s.kind === 'video')
        ?.framesDecoded ?? 0;
    const before = await frames();
    for (let n = 0; n < 30 && this.#peer && (await frames()) <= before; n += 1)
      await new Promise((resolve) => {
        setTimeout(resolve, 50);
      });
  }

  /** Restarts ICE, with retries until the server is reached, unless the connection enters the state `unless` before. */
  async restartIce(unless) {
    if (!this.location || !this.#peer || this.#restarting) return;
    this.#restarting = true;
    const end = performance.now() + RESTARTS_FOR;
    try {
      await this.#inTurn(async () => {
        while (this.#peer && this.#peer.connectionState !== unless && !(await this.#offerIce(this.#peer))) {
          if (performance.now() > end) throw unreachable();
          await this.#backoff.pause();
        }
      });
    } catch (error) {
      if (this.#peer) this.#callbacks.lost(error);
    } finally {
      this.#restarting = false;
    }
  }

  /** Closes the connection without a request to the server. */
  close() {
    for (const timer of Object.values(this.#timers)) clearTimeout(timer);
    const peer = this.#peer;
    this.#peer = null;
    this.#mayTrickle = false;
    peer.onicecandidate = peer.ontrack = peer.onconnectionstatechange = null;
    peer.close();
  }

  #connectsSoon() {
    this.#arm('connect', CONNECT_WITHIN, () => !this.connected && this.#callbacks.lost());
  }

  #changed() {
    const { connectionState, iceConnectionState } = this.#peer;
    clearTimeout(this.#timers.silent);
    if (connectionState === 'connected') {
      clearTimeout(this.#timers.connect);
      clearTimeout(this.#timers.relay);
      this.#carried = true;
      this.#backoff.reset();
    }
    if (connectionState === 'disconnected') this.#arm('silent', RESTART_AFTER, () => this.restartIce('connected'));
    if (connectionState === 'failed' && iceConnectionState === 'failed' && this.#carried) {
      this.#carried = false;
      this.restartIce('connected'); // the network is lost; the session may continue on another one
    } else if (connectionState === 'failed' || connectionState === 'closed') {
      this.#callbacks.lost();
    }
    this.#callbacks.changed();
  }

  /** One attempt of an ICE restart; false if the server did not answer in time. */
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
      response = await this.#server.fetch(this.location, {
        method: 'PATCH',
        headers,
        body,
        signal: AbortSignal.timeout(RESTART_ANSWERED),
      });
      if (response.ok) fragment = await response.text();
    } catch {
      return false;
    }
    if (!response.ok) throw await refusal(response);
    if (!iceCredentials(fragment).ufrag)
      throw new JoinError('No ICE credentials in the answer to an ICE restart.', 502, {});
    if (!this.#peer) return true;
    this.#answer = restartedAnswer(this.#answer, fragment);
    this.#etag = response.headers.get('ETag') ?? this.#etag;
    await peer.setRemoteDescription({ type: 'answer', sdp: this.#answer });
    this.#mayTrickle = true;
    this.#backoff.reset();
    this.#connectsSoon();
    this.#callbacks.restarted();
    this.#trickle();
    return true;
  }

  /** Adds or removes the transceiver of the screen. */
  #fitScreen() {
    if (this.#screen && !this.#screenTransceiver) {
      this.#screenTransceiver = this.#peer.addTransceiver(this.#screen, {
        direction: 'sendonly',
        streams: [new MediaStream([this.#screen])],
      });
    } else if (!this.#screen && this.#screenTransceiver) {
      this.#screenTransceiver.stop();
      this.#screenTransceiver = null;
    }
  }

  /** The offer for the server. */
  #offered() {
    const { sdp } = this.#peer.localDescription;
    return this.#screenTransceiver ? markScreen(sdp, this.#screenTransceiver.mid) : sdp;
  }

  /** Renegotiates after the screen was added or removed. */
  #renegotiate() {
    return this.#inTurn(async () => {
      const peer = this.#peer;
      if (!peer || !this.#mayTrickle) return; // not joined now: the next join includes the screen
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
        if (!this.#peer) return; // replaced by a new connection, which includes the screen
        if (peer.signalingState === 'have-local-offer') await peer.setLocalDescription({ type: 'rollback' });
        this.#screenTransceiver = null; // a rollback removes the transceiver of its offer
        throw error;
      }
    });
  }

  /** Runs one offer/answer exchange at a time. */
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
    // ICE fails later if the candidates were needed.
    await this.#server.fetch(this.location, { method: 'PATCH', headers, body }).catch(() => {});
  }

  #arm(name, delay, then) {
    clearTimeout(this.#timers[name]);
    this.#timers[name] = setTimeout(then, delay);
  }
}

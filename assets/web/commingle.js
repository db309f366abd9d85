// commingle.js: join a commingle room from any web page.
//
//     import { join } from 'https://your.server/commingle.js';
//     const session = await join({ room: 'standup', name: 'Ann', stream: await navigator.mediaDevices.getUserMedia({ audio: true, video: true }) });
//     video.srcObject = session.stream;          // everyone, as one picture and one sound
//     session.addEventListener('layout', () => console.log(session.tile()));
//     await session.leave();
//
// Owns: one RTCPeerConnection, one events WebSocket, and coming back by itself when either is lost (ICE restart first,
// then a new join with back-off; `stream` stays the same object). Knows nothing of any page. See docs/client.md.

import { Direct } from './direct.js';
import { applyEvent, iceCredentials, iceServersOf, markScreen, restartedAnswer, retryAfter, scaleFor, sentFrom, summarise, trickleFragment } from './wire.js';

const ICE_RESTART_AFTER = 1000; // ms of a connection that is silent, before ICE restarts
const RESTART_ANSWERED = 3000; // ms that the answer to an ICE restart may take: by a network that is gone it never comes
const RESTARTS_FOR = 20_000; // ms in which ICE restarts are tried: the server keeps a silent session a little longer
const CONNECT_WITHIN = 10_000; // ms a connection may take before we join anew
const RELAY_AFTER = 2000; // ms a connection may take before the server's TURN servers are tried as well
const CREDENTIALS_FOR = 240_000; // ms that what the server gave for its TURN servers is used again
const BACKOFF = { first: 500, last: 10_000 }; // ms
const RETRY_AT_MOST = 60_000; // ms that a server may ask us to wait
const SCREEN = { frameRate: { ideal: 15, max: 30 } }; // what is read gains nothing from more
const CANDIDATE_BATCH = 30; // ms to collect candidates into one PATCH
const FRAGMENT = 'application/trickle-ice-sdpfrag';

/** Why a join was refused. `message` is the server's own advice (problem+json `detail`); `status` the HTTP status, 0 when the server was not reached; `retryAfter` ms it asks to wait. */
export class JoinError extends Error {
  constructor(message, status, problem, wait = 0) {
    super(message);
    this.name = 'JoinError';
    this.status = status;
    this.problem = problem;
    this.retryAfter = wait;
  }

  /** Worth trying again later: the server was out of reach, busy or restarting. */
  get passing() {
    return this.status === 0 || this.status === 408 || this.status === 429 || this.status >= 500;
  }
}

const isTurn = ({ urls }) => /^turns?:/.test(urls);

/** Where oneself stands while the picture is the other person's alone. */
const corner = (canvas) => {
  const [width, height, margin] = [canvas.width * 0.26, canvas.height * 0.26, canvas.height * 0.03];
  return { x: canvas.width - width - margin, y: canvas.height - height - margin, width, height, source: 'camera', canvas };
};

async function refusal(response) {
  const problem = await response.json().catch(() => ({}));
  const message = problem.detail || problem.title || `The server answered ${response.status} ${response.statusText}.`;
  const wait = [429, 503].includes(response.status) ? retryAfter(response.headers.get('Retry-After'), Date.now()) : 0;
  return new JoinError(message, response.status, problem, Math.min(wait, RETRY_AT_MOST));
}

/**
 * Join a room. Resolves when the server has answered; rejects with a JoinError when it refuses.
 *
 * @param {object} options
 * @param {string} options.room           `[A-Za-z0-9_-]{1,64}`
 * @param {string} [options.name]         written on the tile
 * @param {MediaStream} [options.stream]  at most one audio and one video track; the session stops them on leave()
 * @param {{audio?: boolean, video?: boolean}} [options.send]  kinds to negotiate for sending even though `stream` has no such
 *                                        track yet, so that turning them on later needs no new connection
 * @param {string} [options.url]          the server; default: where this module was loaded from
 * @param {string} [options.token]        bearer token, where the server wants one
 * @param {string} [options.tier]         `auto`, `high`, `medium`, `low`, `slides`, `audio`
 * @param {string} [options.view]         default `program`
 * @param {string} [options.selfView]     `shown` or `hidden`
 * @param {RTCIceServer[]} [options.iceServers]  besides those the server names
 * @param {'all'|'relay'} [options.iceTransportPolicy]  `relay` connects by TURN only
 * @param {boolean} [options.direct]      false: never send to another person directly, also where the server lets two do so
 * @param {'fit'|'full'} [options.uplink] `fit` (default) sends the camera no larger than its tile
 * @param {(track: MediaStreamTrack, stream: MediaStream) => void} [options.onTrack]
 * @param {AbortSignal} [options.signal]  aborting it leaves
 * @returns {Promise<Session>}
 */
export async function join(options) {
  const session = new Session(options);
  await session.start();
  return session;
}

/**
 * One stay in a room. An EventTarget; the payload of each event is in `detail`:
 * `state` (connecting, connected, reconnecting, left; with `reason`), `room` (the whole document), `joined`, `updated`
 * (`{ participant }`), `left` (`{ participant, reason }`: left, removed or lost), `layout` (`{ view, canvas, tiles }`), `speaker`
 * (`{ participant, speaking }`), `levels` (`{ levels: [{ participant, dbov }] }`), `chat`, `mixer`, `recording`
 * (`{ recording }`), `broadcast` (`{ broadcast }`), `input` (`{ input }`), `ended`, `stats` (each second,
 * see `stats()`), `local` (one's own microphone, camera or screen changed).
 */
export class Session extends EventTarget {
  /** The one received MediaStream: the same object for the whole stay. */
  stream = new MediaStream();
  /** What one sends now. */
  local = new MediaStream();
  /** The latest room document. */
  room = { participants: [], views: [] };
  /** `connecting`, `connected`, `reconnecting` or `left`. */
  state = 'connecting';
  /** One's own participant id, e.g. `p3`; null until the server has answered. */
  id = null;
  /** The session URL (a secret: whoever has it can end this stay). */
  location = null;

  #options;
  #base;
  #peer = null;
  #senders = {};
  #screen = null;
  #screenSender = null; // its transceiver
  #direct;
  #turn = Promise.resolve(); // offers go one after the other
  #wants;
  #answer = '';
  #etag = null;
  #candidates = [];
  #mayTrickle = false;
  #gathered = false;
  #batch = 0;
  #servers = []; // the ICE servers that the server named
  #serversAt = -Infinity;
  #socket = null;
  #serverAway = false;
  #deaf = 0;
  #everConnected = false;
  #attempt = 0;
  #rejoining = false;
  #restarting = null; // the connection whose ICE restarts
  #carried = false; // the connection was one once
  #timers = { disconnected: 0, connect: 0, relay: 0, events: 0, stats: 0 };
  #wake = () => {};
  #lastStats = null;
  #statsOf = null; // the connection
  #updateSentAt = -Infinity;
  #constraints = {};
  #gone = new AbortController();

  constructor(options) {
    super();
    this.#options = options;
    this.#base = new URL(options.url ?? new URL('.', import.meta.url), globalThis.location?.href).href.replace(/\/$/, '');
    for (const track of options.stream?.getTracks() ?? []) this.#adopt(track);
    this.#wants = {
      audio: options.send?.audio ?? this.local.getAudioTracks().length > 0,
      video: options.send?.video ?? this.local.getVideoTracks().length > 0,
    };
    this.#direct = new Direct({
      tell: (message) => this.#send(message),
      tracks: () => this.local.getTracks(),
      iceServers: () => [...(options.iceServers ?? []), ...this.#servers],
      changed: (stream, done) => this.#directChanged(stream, done),
    });
    const { signal } = this.#gone;
    globalThis.addEventListener?.('pagehide', () => this.leave('page closed'), { signal });
    globalThis.addEventListener?.('online', () => this.#networkChanged(), { signal });
    const network = globalThis.navigator?.connection;
    let kind = network?.type; // only phones tell it, and of other changes too
    network?.addEventListener('change', () => network.type !== kind && this.#networkChanged((kind = network.type)), { signal });
    options.signal?.addEventListener('abort', () => this.leave('aborted'), { signal });
  }

  /** Called by join(). */
  async start() {
    this.#options.signal?.throwIfAborted();
    try {
      await this.#connect();
    } catch (error) {
      this.#close('refused');
      throw error;
    }
    this.#timers.stats = setInterval(() => this.#tick(), 1000);
  }

  // What one does ---------------------------------------------------------------------------------------------------

  /** The microphone is on and heard. */
  get microphone() {
    return this.local.getAudioTracks().some((t) => t.enabled && t.readyState === 'live');
  }

  /** The camera is on and seen. */
  get camera() {
    return this.local.getVideoTracks().some((t) => t.enabled && t.readyState === 'live');
  }

  /** Mute (false), unmute (true; asks for a microphone if there is none yet), or speak through another track. */
  async setMicrophone(on) {
    const track = this.local.getAudioTracks()[0];
    if (typeof on === 'object') await this.replaceTrack(on);
    else if (on && !track) await this.replaceTrack(await this.#capture('audio'));
    else if (track) track.enabled = on;
    this.#localChanged();
  }

  /** Camera off (false: the device is released, its light goes out), on again (true), or another camera track. */
  async setCamera(on) {
    const track = this.local.getVideoTracks()[0];
    if (typeof on === 'object') await this.replaceTrack(on);
    else if (on && !track) await this.replaceTrack(await this.#capture('video'));
    else if (!on && track) {
      this.local.removeTrack(track);
      track.stop();
      await this.#sendInstead('video', null);
    }
    this.#localChanged();
  }

  /** The screen is shared. */
  get screen() {
    return this.#screen !== null;
  }

  /** Share the screen (true: asks which; or a track of one's own), or stop sharing (false). */
  async setScreen(on) {
    if (!on) return this.#screen && this.#showScreen(null);
    const track = on === true ? (await navigator.mediaDevices.getDisplayMedia({ video: SCREEN })).getVideoTracks()[0] : on;
    if (this.state === 'left') return track.stop();
    track.contentHint ||= 'detail';
    track.addEventListener('ended', () => this.#screen === track && this.#showScreen(null).catch(() => {})); // by the browser's own button
    await this.#showScreen(track);
  }

  async #showScreen(track) {
    const before = this.#screen;
    this.#screen = track;
    this.#emitLocal();
    try {
      if (before && track && this.#screenSender) await this.#screenSender.sender.replaceTrack(track);
      else await this.#renegotiate();
      before?.stop();
    } catch (error) {
      track?.stop();
      this.#screen = null;
      this.#emitLocal();
      throw error;
    }
  }

  /** Send `track` instead of the one of its kind sent so far (which is stopped). Needs no negotiation if the kind was negotiated. */
  async replaceTrack(track) {
    const old = this.local.getTracks().find((t) => t.kind === track.kind);
    if (this.state === 'left') return track.stop();
    if (old && old !== track) {
      track.enabled = old.enabled;
      this.local.removeTrack(old);
      old.stop();
    }
    this.#adopt(track);
    if (this.#wants[track.kind]) {
      await this.#sendInstead(track.kind, track);
    } else {
      this.#wants[track.kind] = true; // it was joined without: only a new connection can send it
      this.#rejoin(true);
    }
    this.#localChanged();
  }

  /** What is sent of a kind goes where media goes now: over the mixer, directly, or both while they look for a way. */
  async #sendInstead(kind, track) {
    if (!this.direct) await this.#senders[kind]?.replaceTrack(track);
    await this.#direct.replace(kind, track);
  }

  /** The connection that media goes over now. */
  get #way() {
    return this.direct ? this.#direct.peer : this.#peer;
  }

  /** Media goes to the other person directly (`stream`), or over the mixer again (null): then `done` ends the direct way. */
  async #directChanged(stream, done) {
    const [peer, senders] = [this.#peer, this.#senders];
    for (const kind of ['audio', 'video']) {
      const track = stream ? null : this.local.getTracks().find((t) => t.kind === kind) ?? null;
      senders[kind]?.replaceTrack(track).catch(() => {}); // the connection is gone: the next one sends it
    }
    this.#emit('layout', this.view());
    if (!stream) {
      await this.#mixMoves(peer); // until then the other is still seen
      done();
    }
    const received = stream?.getTracks() ?? peer?.getReceivers().map((r) => r.track).filter((t) => this.#senders[t.kind]) ?? [];
    if (peer === this.#peer && this.direct === Boolean(stream)) for (const track of received) this.#receive(track);
    this.#emit('local', { microphone: this.microphone, camera: this.camera, screen: this.screen });
  }

  /** Waits until the mixed picture moves again, a second and a half at most. */
  async #mixMoves(peer) {
    const frames = async () => [...(await peer.getStats()).values()].find((s) => s.type === 'inbound-rtp' && s.kind === 'video')?.framesDecoded ?? 0;
    const before = peer ? await frames() : 0;
    for (let n = 0; n < 30 && peer === this.#peer && (await frames()) <= before; n += 1) await new Promise((resolve) => { setTimeout(resolve, 50); });
  }

  /** Say something to everyone in the room. False when there is no connection to say it on. */
  sendChat(text) {
    return this.#send({ type: 'chat', text });
  }

  /**
   * Ask the server's API (docs/api.md) as who one is here; `{room}` in `path` is this room. Resolves with the JSON it answers, or
   * null; rejects with a JoinError. A moderator starts a recording by `call('/v1/rooms/{room}/recordings', { method: 'POST', body: {} })`.
   */
  async call(path, { method = 'GET', body } = {}) {
    const headers = body === undefined ? {} : { 'Content-Type': 'application/json' };
    const response = await this.#fetch(this.url(path), { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
    if (!response.ok) throw await refusal(response);
    return response.status === 204 ? null : response.json();
  }

  /** The URL of a path of the API that says who one is: for a `<video>` or a link, which can send no headers. */
  url(path) {
    const url = new URL(this.#base + path.replace('{room}', encodeURIComponent(this.#options.room)));
    const session = this.location?.split('/').pop();
    if (session) url.searchParams.set('session', session);
    return url.href;
  }

  /** Media goes straight to the other person and back, not over the server. */
  get direct() {
    return this.#direct.on;
  }

  /** One's own tile in the view one watches, in pixels of `canvas`: `{ x, y, width, height, canvas }`, or null. */
  tile(source = 'camera') {
    const view = this.view();
    if (this.direct) return source === 'camera' ? corner(view?.canvas ?? { width: 1280, height: 720 }) : null;
    const tile = view?.tiles.find((t) => t.participant === this.id && (t.source ?? 'camera') === source);
    return tile ? { ...tile, canvas: view.canvas } : null;
  }

  /** The view one watches: `{ view, canvas, tiles }`, or null before the first layout. */
  view() {
    const views = this.room.views ?? [];
    const name = this.self?.view ?? this.#options.view ?? 'program';
    return views.find((v) => v.view === name) ?? (views.length === 1 ? views[0] : null);
  }

  /** One's own participant document, or null. */
  get self() {
    return this.room.participants.find((p) => p.id === this.id) ?? null;
  }

  /** `{ streams, kbpsDown, kbpsUp, fps, width, height, codec, audioCodec, packetsLost, freezes, rtt, … }` since the last second. */
  async stats() {
    const peer = this.#way;
    const now = await peer?.getStats();
    return now ? summarise(now, this.#statsOf === peer ? this.#lastStats : null) : null;
  }

  /** Leave the room; stops the tracks that were sent. Safe to call twice. */
  async leave(reason = 'left') {
    if (this.state === 'left') return;
    const goodbye = this.#goodbye();
    this.#close(reason);
    await goodbye;
  }

  // Joining ---------------------------------------------------------------------------------------------------------

  #headers(more = {}) {
    const { token } = this.#options;
    return token ? { Authorization: `Bearer ${token}`, ...more } : more;
  }

  /** fetch that turns "no network" into a JoinError. */
  async #fetch(url, init) {
    try {
      return await fetch(url, { ...init, headers: this.#headers(init?.headers), credentials: 'omit', cache: 'no-store' });
    } catch {
      throw new JoinError('The server cannot be reached. Check the network.', 0, {});
    }
  }

  /** One attempt: a fresh peer connection, one POST, the answer. */
  async #connect() {
    if (performance.now() - this.#serversAt > CREDENTIALS_FOR) this.#servers = [];
    const { iceServers: own = [], iceTransportPolicy = 'all' } = this.#options;
    const relayed = this.#servers.some(isTurn); // it is gathered from the beginning
    const peer = new RTCPeerConnection({ bundlePolicy: 'max-bundle', iceTransportPolicy, iceServers: [...own, ...this.#servers] });
    this.#peer = peer;
    this.#mayTrickle = this.#gathered = this.#carried = false;
    this.#candidates = [];
    this.#lastStats = null;
    peer.onicecandidate = ({ candidate }) => peer === this.#peer && this.#gather(candidate);
    peer.ontrack = ({ track }) => peer === this.#peer && this.#receive(track);
    peer.onconnectionstatechange = () => peer === this.#peer && this.#peerChanged();
    for (const kind of ['audio', 'video']) this.#transceiver(peer, kind);
    this.#fitScreen(peer);
    this.#arm('connect', CONNECT_WITHIN, () => this.#rejoin());
    this.#refreshState();

    await peer.setLocalDescription(await peer.createOffer());
    const { room, name, tier, view, selfView } = this.#options;
    const query = new URLSearchParams();
    for (const [key, value] of Object.entries({ name, tier, view, self_view: selfView })) if (value) query.set(key, value);
    const path = `${this.#base}/v1/rooms/${encodeURIComponent(room)}/participants?${query}`;
    const response = await this.#fetch(path, {
      method: 'POST',
      headers: { 'Content-Type': 'application/sdp', Accept: 'application/sdp' },
      body: this.#offer(peer),
      signal: this.#gone.signal,
    });
    if (!response.ok) throw await refusal(response);
    const answer = await response.text();
    const location = new URL(response.headers.get('Location'), response.url).href;
    if (this.state === 'left') {
      fetch(location, { method: 'DELETE', headers: this.#headers(), keepalive: true }).catch(() => {});
      throw new JoinError('Left while joining.', 0, {});
    }
    this.location = location;
    this.#etag = response.headers.get('ETag');
    this.id = response.headers.get('Commingle-Participant');
    const servers = iceServersOf(response.headers.get('Link'));
    if (servers.length) {
      [this.#servers, this.#serversAt] = [servers, performance.now()];
      peer.setConfiguration({ ...peer.getConfiguration(), iceServers: [...own, ...servers] });
    }
    this.#answer = answer;
    this.#openEvents();
    await peer.setRemoteDescription({ type: 'answer', sdp: answer });
    this.#mayTrickle = true;
    this.#trickle();
    // Most networks need no relay: joining does not wait for one, and where nothing connects it is asked for by an ICE restart.
    if (!relayed && servers.some(isTurn)) this.#arm('relay', iceTransportPolicy === 'relay' ? 0 : RELAY_AFTER, () => this.#restartIce('connected'));
    if (!this.id) this.#whoAmI();
    this.#fitUplink();
  }

  #transceiver(peer, kind) {
    const track = this.local.getTracks().find((t) => t.kind === kind);
    const direction = this.#wants[kind] ? 'sendrecv' : 'recvonly';
    const { sender } = peer.addTransceiver(track ?? kind, { direction, streams: direction === 'sendrecv' ? [this.local] : [] });
    this.#senders[kind] = sender;
  }

  /** Brings the screen's transceiver to whether there is one to send. */
  #fitScreen(peer) {
    if (this.#screen && !this.#screenSender) {
      this.#screenSender = peer.addTransceiver(this.#screen, { direction: 'sendonly', streams: [new MediaStream([this.#screen])] });
    } else if (!this.#screen && this.#screenSender) {
      this.#screenSender.stop();
      this.#screenSender = null;
    }
  }

  /** The offer as the server gets it. */
  #offer(peer) {
    const { sdp } = peer.localDescription;
    return this.#screenSender ? markScreen(sdp, this.#screenSender.mid) : sdp;
  }

  /** A new offer on the same connection, as often as the screen comes or goes. */
  #renegotiate() {
    return this.#inTurn(async () => {
      const peer = this.#peer;
      if (!peer || !this.#mayTrickle) return; // not joined at present: the next join offers it
      this.#fitScreen(peer);
      try {
        await peer.setLocalDescription();
        const headers = { 'Content-Type': 'application/sdp' };
        const response = await this.#fetch(this.location, { method: 'PATCH', headers, body: this.#offer(peer) });
        if (!response.ok) throw await refusal(response);
        const answer = await response.text();
        if (peer !== this.#peer) return;
        this.#answer = answer;
        this.#etag = response.headers.get('ETag') ?? this.#etag;
        await peer.setRemoteDescription({ type: 'answer', sdp: answer });
      } catch (error) {
        if (peer !== this.#peer) return; // overtaken by a new connection, which has offered it
        if (peer.signalingState === 'have-local-offer') await peer.setLocalDescription({ type: 'rollback' });
        this.#screenSender = null; // a rollback takes back a transceiver that only its offer had
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

  async #whoAmI() {
    const { location } = this;
    const response = await this.#fetch(location).catch(() => null);
    if (!response?.ok || location !== this.location) return;
    this.id ??= (await response.json()).id ?? null;
    this.#emit('room', this.room);
  }

  #receive(track) {
    for (const old of this.stream.getTracks()) if (old.kind === track.kind) this.stream.removeTrack(old);
    this.stream.addTrack(track);
    this.#options.onTrack?.(track, this.stream);
  }

  #gather(candidate) {
    if (candidate?.candidate) this.#candidates.push(candidate);
    else if (!candidate) this.#gathered = true;
    clearTimeout(this.#batch);
    if (this.#mayTrickle) this.#batch = setTimeout(() => this.#trickle(), CANDIDATE_BATCH);
  }

  async #trickle() {
    const done = this.#gathered;
    const candidates = this.#candidates.splice(0);
    if (!this.#mayTrickle || (!candidates.length && !done)) return;
    this.#gathered = false;
    const body = trickleFragment(this.#peer.localDescription.sdp, candidates, done);
    const headers = { 'Content-Type': FRAGMENT, ...(this.#etag && { 'If-Match': this.#etag }) };
    await this.#fetch(this.location, { method: 'PATCH', headers, body }).catch(() => {}); // ICE itself tells whether it mattered
  }

  // Coming back -----------------------------------------------------------------------------------------------------

  #peerChanged() {
    const { connectionState, iceConnectionState } = this.#peer;
    clearTimeout(this.#timers.disconnected);
    if (connectionState === 'connected') {
      clearTimeout(this.#timers.connect);
      clearTimeout(this.#timers.relay);
      this.#everConnected = this.#carried = true;
      this.#attempt = 0;
      this.#tick();
    }
    if (connectionState === 'disconnected') this.#arm('disconnected', ICE_RESTART_AFTER, () => this.#restartIce('connected'));
    if (connectionState === 'failed' && iceConnectionState === 'failed' && this.#carried) {
      this.#carried = false;
      this.#restartIce('connected'); // its network is gone: by another one the session goes on
    } else if (connectionState === 'failed' || connectionState === 'closed') {
      this.#rejoin();
    }
    this.#refreshState();
  }

  #refreshState() {
    if (this.state === 'left') return;
    const connected = this.#peer?.connectionState === 'connected' && !this.#rejoining && !this.#serverAway;
    this.#setState(connected ? 'connected' : this.#everConnected || this.#rejoining ? 'reconnecting' : 'connecting');
  }

  #setState(state, reason) {
    if (state === this.state) return;
    this.state = state;
    this.#emit('state', { state, reason });
  }

  /** The network is another one: what connections are bound to may be gone without a word. */
  #networkChanged() {
    this.#wake();
    if (this.#everConnected && this.#mayTrickle) this.#restartIce();
  }

  /** Look for another way, as often as it takes to reach the server, unless the connection is in the state `unless` by then. */
  async #restartIce(unless) {
    const peer = this.#peer;
    if (!peer || this.#restarting === peer || this.#rejoining) return;
    this.#restarting = peer;
    const end = performance.now() + RESTARTS_FOR;
    try {
      await this.#inTurn(async () => {
        while (peer === this.#peer && peer.connectionState !== unless && !(await this.#offerIce(peer))) {
          if (performance.now() > end) throw new JoinError('The server cannot be reached. Check the network.', 0, {});
          await this.#pause();
        }
      });
    } catch (error) {
      if (peer === this.#peer) this.#rejoin(false, error.retryAfter);
    } finally {
      if (this.#restarting === peer) this.#restarting = null;
    }
  }

  /** One try of it; false when the server was not reached, or not in time. */
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
      response = await this.#fetch(this.location, { method: 'PATCH', headers, body, signal: AbortSignal.timeout(RESTART_ANSWERED) });
      if (response.ok) fragment = await response.text();
    } catch {
      return false;
    }
    if (!response.ok) throw await refusal(response);
    if (!iceCredentials(fragment).ufrag) throw new JoinError('No ICE credentials in the answer to an ICE restart.', 502, {});
    if (peer !== this.#peer) return true;
    this.#answer = restartedAnswer(this.#answer, fragment);
    this.#etag = response.headers.get('ETag') ?? this.#etag;
    await peer.setRemoteDescription({ type: 'answer', sdp: this.#answer });
    this.#mayTrickle = true;
    this.#attempt = 0;
    this.#arm('connect', CONNECT_WITHIN, () => peer.connectionState !== 'connected' && this.#rejoin());
    if (this.#everConnected) this.#openEvents(); // the old socket may hang on a network that is gone
    this.#trickle();
    return true;
  }

  /** Give this connection up and join again, as often as it takes, unless the server says no. */
  async #rejoin(now = false, least = 0) {
    if (this.#rejoining || this.state === 'left') return;
    this.#rejoining = true;
    this.#refreshState();
    for (;;) {
      this.#goodbye();
      this.#hangUp();
      if (!now) await this.#pause(least);
      if (this.state === 'left') return;
      now = false;
      try {
        this.#rejoining = false;
        await this.#connect();
        this.#serverAway = false;
        return;
      } catch (error) {
        if (this.state === 'left') return;
        this.#rejoining = true;
        if (error instanceof JoinError && !error.passing) return this.#close(error.message);
        least = error.retryAfter;
      }
    }
  }

  /** Longer each time, at least as long as the server asked for, and never for all at the same time. */
  #pause(least = 0) {
    const whole = Math.min(BACKOFF.last, BACKOFF.first * 2 ** this.#attempt);
    const wait = Math.max(whole * (0.5 + Math.random() / 2), least + (Math.random() * BACKOFF.first) / 2);
    this.#attempt += 1;
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, wait);
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }

  /** Tell the server, even from a page that closes, that this session is over. */
  #goodbye() {
    const { location } = this;
    this.location = null;
    if (!location) return Promise.resolve();
    return fetch(location, { method: 'DELETE', headers: this.#headers(), keepalive: true, credentials: 'omit' }).then(
      () => {},
      () => {}, // it notices by itself within seconds
    );
  }

  #hangUp() {
    for (const name of ['disconnected', 'connect', 'relay', 'events']) clearTimeout(this.#timers[name]);
    clearTimeout(this.#batch);
    this.#direct.end();
    const [peer, socket] = [this.#peer, this.#socket];
    this.#peer = this.#socket = null;
    this.#senders = {};
    this.#screenSender = null;
    this.#mayTrickle = false;
    peer?.close();
    socket?.close();
  }

  #close(reason) {
    this.#setState('left', reason);
    this.#gone.abort();
    clearInterval(this.#timers.stats);
    this.#hangUp();
    this.#wake();
    for (const track of this.local.getTracks()) track.stop();
    this.#screen?.stop();
    this.#screen = null;
    for (const track of this.stream.getTracks()) this.stream.removeTrack(track);
  }

  // Events ----------------------------------------------------------------------------------------------------------

  #openEvents() {
    const secret = this.location.split('/').pop();
    const url = `${this.#base.replace(/^http/, 'ws')}/v1/rooms/${encodeURIComponent(this.#options.room)}/events?session=${secret}`;
    const socket = new WebSocket(url);
    this.#socket?.close();
    this.#socket = socket;
    socket.onmessage = ({ data }) => {
      if (socket !== this.#socket) return;
      this.#serverAway = false;
      this.#deaf = 0;
      this.#handle(JSON.parse(data));
      this.#refreshState();
    };
    socket.onclose = () => socket === this.#socket && again();
    const again = () => {
      const wait = Math.min(BACKOFF.last, BACKOFF.first * 2 ** this.#deaf) * (0.5 + Math.random() / 2);
      this.#deaf += 1;
      this.#arm('events', wait, ask);
    };
    // Whether the session still lives decides what to do: listen again, or join again.
    const ask = async () => {
      try {
        const response = await this.#fetch(this.location);
        if (socket !== this.#socket) return;
        if (response.status === 404 || response.status === 410) {
          this.location = null; // nothing there to say goodbye to
          return this.#rejoin();
        }
        this.#openEvents();
      } catch {
        if (socket !== this.#socket) return;
        this.#serverAway = true;
        this.#refreshState();
        again();
      }
    };
  }

  #handle(event) {
    if (event.type !== 'room' && event.version !== undefined && this.room.version !== undefined) {
      if (event.version <= this.room.version) return;
      if (event.version > this.room.version + 1) this.#fetchRoom();
    }
    const before = this.room;
    this.room = applyEvent(this.room, event);
    const { type, ...detail } = event;
    if (type === 'left') {
      const id = detail.participant?.id ?? detail.participant;
      if (id === this.id) return this.#left(detail.reason);
      detail.participant = before.participants.find((p) => p.id === id) ?? { id };
    }
    if (type === 'ended') {
      this.#emit('ended', detail);
      if (detail.reason === 'empty') return this.#rejoin(); // it took us for gone
      return this.#dismissed('The room was ended.');
    }
    if (type === 'direct') return this.#direct.handle(detail);
    if (type === 'ice_restart') return this.#restartIce(); // the server does not hear us, whatever we think
    if (type === 'room') {
      this.#recognise();
      // Whoever wants a relay does not want to be seen by the other; ours relays to the server only.
      const { direct = true, iceTransportPolicy } = this.#options;
      if (direct && iceTransportPolicy !== 'relay' && this.local.getTracks().length) this.#send({ type: 'direct', state: 'able' });
    }
    if (type === 'room' || type === 'layout') this.#fitUplink();
    if (type === 'room' || (type === 'joined' && detail.participant?.id === this.id)) this.#tellMuted();
    if (type === 'updated' && detail.participant?.id === this.id) this.#obey(detail.participant);
    this.#emit(type, type === 'room' ? this.room : detail);
  }

  async #fetchRoom() {
    const session = this.location?.split('/').pop();
    if (!session) return;
    const url = `${this.#base}/v1/rooms/${encodeURIComponent(this.#options.room)}?session=${session}`;
    const response = await this.#fetch(url).catch(() => null);
    if (!response?.ok || this.state === 'left') return;
    const room = await response.json();
    if (room.version < this.room.version) return;
    this.room = applyEvent({}, { type: 'room', room });
    this.#fitUplink();
    this.#emit('room', this.room);
  }

  #recognise() {
    this.id ??= this.room.participants.find((p) => p.self)?.id ?? null;
  }

  /** The server says we are gone: put out, or because our media did not arrive. */
  #left(reason) {
    this.location = null; // nothing there to say goodbye to
    if (reason === 'removed') this.#close('You were removed from the room.');
    else this.#rejoin();
  }

  /** Sent away: for good, unless the server is only shutting down, when we come back to the next one. */
  async #dismissed(message) {
    this.location = null;
    this.#socket = null; // the server closes it: no reason to ask it why
    const ready = await this.#fetch(`${this.#base}/readyz`).catch(() => null);
    if (ready?.ok) this.#close(message);
    else this.#rejoin();
  }

  /** A moderator may mute us; nobody but us unmutes. */
  #obey({ audio_muted: audioMuted, video_muted: videoMuted }) {
    if (performance.now() - this.#updateSentAt < 1500) return;
    if (audioMuted === true && this.microphone) this.setMicrophone(false);
    if (videoMuted === true && this.camera) this.setCamera(false);
  }

  #localChanged() {
    this.#tellMuted();
    this.#emitLocal();
  }

  #emitLocal() {
    this.#emit('local', { microphone: this.microphone, camera: this.camera, screen: this.screen });
  }

  #tellMuted() {
    const self = this.self;
    if (!self) return; // not connected yet: told as soon as the room shows us
    const update = {};
    if (this.#wants.audio && self.audio_muted !== !this.microphone) update.audio_muted = !this.microphone;
    if (this.#wants.video && self.video_muted !== !this.camera) update.video_muted = !this.camera;
    if (Object.keys(update).length && this.#send({ type: 'update', ...update })) {
      this.#updateSentAt = performance.now();
      this.room = applyEvent(this.room, { type: 'updated', participant: { id: this.id, ...update } });
    }
  }

  #send(message) {
    if (this.#socket?.readyState !== WebSocket.OPEN) return false;
    this.#socket.send(JSON.stringify(message));
    return true;
  }

  // Small things ----------------------------------------------------------------------------------------------------

  #adopt(track) {
    if (this.local.getTracks().includes(track)) return;
    this.local.addTrack(track);
    const { deviceId } = track.getSettings();
    if (deviceId) this.#constraints[track.kind] = { deviceId: { ideal: deviceId } };
    track.addEventListener('ended', () => this.local.getTracks().includes(track) && this.#lost(track)); // unplugged
  }

  #lost(track) {
    this.local.removeTrack(track);
    this.#sendInstead(track.kind, null).catch(() => {});
    this.#localChanged();
  }

  async #capture(kind) {
    const shape = kind === 'video' ? { width: { ideal: 1280 }, height: { ideal: 720 }, frameRate: { ideal: 30 } } : {};
    const stream = await navigator.mediaDevices.getUserMedia({ [kind]: { ...shape, ...this.#constraints[kind] } });
    return stream.getTracks()[0];
  }

  /** Send the camera no larger than the largest tile it has in any view. */
  async #fitUplink() {
    const sender = this.#senders.video;
    const track = sender?.track;
    if (!track || this.#options.uplink === 'full') return;
    const mine = (this.room.views ?? []).flatMap((v) => v.tiles).filter((t) => t.participant === this.id && t.source !== 'screen');
    const tile = mine.sort((a, b) => b.width * b.height - a.width * a.height)[0];
    const { width, height } = track.getSettings();
    const parameters = sender.getParameters();
    if (!parameters.encodings?.length) return;
    const scaleResolutionDownBy = scaleFor(width ?? 0, height ?? 0, tile);
    const now = parameters.encodings[0];
    if (Math.abs((now.scaleResolutionDownBy ?? 1) - scaleResolutionDownBy) < 0.02) return;
    Object.assign(now, { scaleResolutionDownBy });
    await sender.setParameters(parameters).catch(() => {}); // overtaken by a newer layout: the next call sets it
  }

  async #tick() {
    const peer = this.#way;
    if (peer?.connectionState !== 'connected') return;
    const now = await peer.getStats();
    if (peer !== this.#way) return;
    const before = this.#statsOf === peer ? this.#lastStats : null;
    [this.#lastStats, this.#statsOf] = [now, peer];
    if (!before) return;
    const [was, is] = [sentFrom(before), sentFrom(now)];
    if (was && is && was !== is && this.location) this.#openEvents(); // ICE has changed networks by itself: a socket cannot
    this.#emit('stats', summarise(now, before));
  }

  #arm(name, delay, then) {
    clearTimeout(this.#timers[name]);
    this.#timers[name] = setTimeout(then, delay);
  }

  #emit(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

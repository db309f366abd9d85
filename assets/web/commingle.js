// commingle.js: join a commingle room from any web page.
//
//     import { join } from 'https://your.server/commingle.js';
//     const session = await join({ room: 'standup', name: 'Ann', stream: await navigator.mediaDevices.getUserMedia({ audio: true, video: true }) });
//     video.srcObject = session.stream;          // everyone, as one picture and one sound
//     session.addEventListener('layout', () => console.log(session.tile()));
//     await session.leave();
//
// Owns: one stay in a room: what one sends, the room document, and a new connection (connection.js) and events (events.js) when the
// session is lost; `stream` stays the same object. Does not know: SDP, any page. See docs/client.md.

import { Connection } from './connection.js';
import { Direct } from './direct.js';
import { Events } from './events.js';
import { JoinError, Patience, refusal, Server } from './server.js';
import { applyEvent, sentFrom, summarise } from './wire.js';

export { JoinError };

const CREDENTIALS_FOR = 240_000; // ms that what the server gave for its TURN servers is used again
const SCREEN = { frameRate: { ideal: 15, max: 30 } }; // what is read gains nothing from more

/** Where oneself stands while the picture is the other person's alone. */
const corner = (canvas) => {
  const [width, height, margin] = [canvas.width * 0.26, canvas.height * 0.26, canvas.height * 0.03];
  return { x: canvas.width - width - margin, y: canvas.height - height - margin, width, height, source: 'camera', canvas };
};

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
  #server;
  #connection = null;
  #events = null;
  #direct;
  #patience = new Patience();
  #screen = null;
  #wants;
  #servers = []; // the ICE servers that the server named
  #serversAt = -Infinity;
  #serverAway = false;
  #everConnected = false;
  #rejoining = false;
  /** @type {ReturnType<typeof setInterval> | number} */
  #ticks = 0;
  #lastStats = null;
  #statsOf = null; // the RTCPeerConnection
  #updateSentAt = -Infinity;
  #constraints = {};
  #gone = new AbortController();

  constructor(options) {
    super();
    this.#options = options;
    this.#server = new Server(new URL(options.url ?? new URL('.', import.meta.url), globalThis.location?.href).href, options.token);
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
    network?.addEventListener('change', () => {
      if (network.type === kind) return;
      kind = network.type;
      this.#networkChanged();
    }, { signal });
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
    this.#ticks = setInterval(() => this.#tick(), 1000);
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
      await this.#connection?.setScreen(track);
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
    if (!this.direct) await this.#connection?.send(kind, track);
    await this.#direct.replace(kind, track);
  }

  /** The RTCPeerConnection that media goes over now. */
  get #way() {
    return this.direct ? this.#direct.peer : this.#connection?.peer;
  }

  /** Media goes to the other person directly (`stream`), or over the mixer again (null): then `done` ends the direct way. */
  async #directChanged(stream, done) {
    const connection = this.#connection;
    for (const kind of ['audio', 'video']) {
      const track = stream ? null : this.local.getTracks().find((t) => t.kind === kind) ?? null;
      connection?.send(kind, track).catch(() => {}); // the connection is gone: the next one sends it
    }
    this.#emit('layout', this.view());
    if (!stream) {
      await connection?.moves(); // until then the other is still seen
      done();
    }
    const received = stream?.getTracks() ?? connection?.received ?? [];
    if (connection === this.#connection && this.direct === Boolean(stream)) for (const track of received) this.#receive(track);
    this.#emitLocal();
  }

  /** Say something to everyone in the room. False when there is no connection to say it on. */
  sendChat(text) {
    return this.#send({ type: 'chat', text });
  }

  /**
   * Ask the server's API (docs/api.md) as who one is here; `{room}` in `path` is this room. Resolves with the JSON it answers, or
   * null; rejects with a JoinError. A moderator starts a recording by `call('/v1/rooms/{room}/recordings', { method: 'POST', body: {} })`.
   * @param {string} path
   * @param {{ method?: string, body?: unknown }} request
   */
  async call(path, { method = 'GET', body } = {}) {
    const headers = body === undefined ? {} : { 'Content-Type': 'application/json' };
    const response = await this.#server.fetch(this.url(path), { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
    if (!response.ok) throw await refusal(response);
    return response.status === 204 ? null : response.json();
  }

  /** The URL of a path of the API that says who one is: for a `<video>` or a link, which can send no headers. */
  url(path) {
    const url = this.#server.at(path.replace('{room}', encodeURIComponent(this.#options.room)));
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

  /** One attempt: a connection, its answer, and the events. */
  async #connect() {
    if (performance.now() - this.#serversAt > CREDENTIALS_FOR) this.#servers = [];
    const { room, name, tier, view, selfView, iceServers: own = [], iceTransportPolicy: policy = 'all' } = this.#options;
    const connection = new Connection({
      server: this.#server,
      patience: this.#patience,
      ice: { own, named: this.#servers, policy },
      stream: this.local,
      wants: this.#wants,
      screen: this.#screen,
      told: {
        track: (track) => this.#receive(track),
        changed: () => this.#connectionChanged(),
        restarted: () => this.#everConnected && this.#events?.open(), // the old socket may hang on a network that is gone
        lost: (error) => this.#rejoin(false, error?.retryAfter),
      },
    });
    this.#connection = connection;
    this.#lastStats = null;
    this.#refreshState();

    const url = this.#server.at(`/v1/rooms/${encodeURIComponent(room)}/participants`);
    for (const [key, value] of Object.entries({ name, tier, view, self_view: selfView })) if (value) url.searchParams.set(key, value);
    await connection.offer(url, this.#gone.signal);
    if (this.state === 'left') {
      this.#server.end(connection.location);
      throw new JoinError('Left while joining.', 0, {});
    }
    this.location = connection.location;
    this.id = connection.participant;
    if (connection.named.length) [this.#servers, this.#serversAt] = [connection.named, performance.now()];
    this.#events = new Events(this.#server, room, this.location, {
      heard: (event) => {
        this.#serverAway = false;
        this.#handle(event);
        this.#refreshState();
      },
      away: () => {
        this.#serverAway = true;
        this.#refreshState();
      },
      gone: () => {
        this.location = null; // nothing there to say goodbye to
        this.#rejoin();
      },
    });
    await connection.accept();
    if (!this.id) this.#whoAmI();
    this.#fitUplink();
  }

  async #whoAmI() {
    const { location } = this;
    const response = await this.#server.fetch(location).catch(() => null);
    if (!response?.ok || location !== this.location) return;
    this.id ??= (await response.json()).id ?? null;
    this.#emit('room', this.room);
  }

  #receive(track) {
    for (const old of this.stream.getTracks()) if (old.kind === track.kind) this.stream.removeTrack(old);
    this.stream.addTrack(track);
    this.#options.onTrack?.(track, this.stream);
  }

  // Coming back -----------------------------------------------------------------------------------------------------

  #connectionChanged() {
    if (this.#connection?.connected) {
      this.#everConnected = true;
      this.#tick();
    }
    this.#refreshState();
  }

  #refreshState() {
    if (this.state === 'left') return;
    const connected = this.#connection?.connected && !this.#rejoining && !this.#serverAway;
    this.#setState(connected ? 'connected' : this.#everConnected || this.#rejoining ? 'reconnecting' : 'connecting');
  }

  #setState(state, reason) {
    if (state === this.state) return;
    this.state = state;
    this.#emit('state', { state, reason });
  }

  /** The network is another one: what connections are bound to may be gone without a word. */
  #networkChanged() {
    this.#patience.wake();
    if (this.#everConnected) this.#connection?.restartIce();
  }

  /** Give this connection up and join again, as often as it takes, unless the server says no. */
  async #rejoin(now = false, least = 0) {
    if (this.#rejoining || this.state === 'left') return;
    this.#rejoining = true;
    this.#refreshState();
    for (;;) {
      this.#goodbye();
      this.#hangUp();
      if (!now) await this.#patience.pause(least);
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

  /** Tell the server that this session is over. */
  async #goodbye() {
    const { location } = this;
    this.location = null;
    if (location) await this.#server.end(location);
  }

  #hangUp() {
    this.#direct.end();
    const [connection, events] = [this.#connection, this.#events];
    this.#connection = this.#events = null;
    connection?.close();
    events?.close();
  }

  #close(reason) {
    this.#setState('left', reason);
    this.#gone.abort();
    clearInterval(this.#ticks);
    this.#hangUp();
    this.#patience.wake();
    for (const track of this.local.getTracks()) track.stop();
    this.#screen?.stop();
    this.#screen = null;
    for (const track of this.stream.getTracks()) this.stream.removeTrack(track);
  }

  // Events ----------------------------------------------------------------------------------------------------------

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
    if (type === 'ice_restart') return this.#connection?.restartIce(); // the server does not hear us, whatever we think
    if (type === 'room') {
      this.#recognise();
      this.#sayAble();
    }
    if (type === 'room' || type === 'layout') this.#fitUplink();
    if (type === 'room' || (type === 'joined' && detail.participant?.id === this.id)) this.#tellMuted();
    if (type === 'updated' && detail.participant?.id === this.id) this.#obey(detail.participant);
    this.#emit(type, type === 'room' ? this.room : detail);
  }

  async #fetchRoom() {
    if (!this.location) return;
    const response = await this.#server.fetch(this.url('/v1/rooms/{room}')).catch(() => null);
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
    this.#events?.close(); // the server does too: no reason to ask it why
    const ready = await this.#server.fetch(this.#server.at('/readyz')).catch(() => null);
    if (ready?.ok) this.#close(message);
    else this.#rejoin();
  }

  /** A moderator may mute us; nobody but us unmutes. */
  #obey({ audio_muted: audioMuted, video_muted: videoMuted }) {
    if (performance.now() - this.#updateSentAt < 1500) return;
    if (audioMuted === true && this.microphone) this.setMicrophone(false);
    if (videoMuted === true && this.camera) this.setCamera(false);
  }

  /** Says that media may go to another person directly, once there is some. Whoever wants a relay does not want to be seen. */
  #sayAble() {
    const { direct = true, iceTransportPolicy } = this.#options;
    if (direct && iceTransportPolicy !== 'relay' && this.local.getTracks().length) this.#send({ type: 'direct', state: 'able' });
  }

  #localChanged() {
    this.#sayAble(); // the first track may have come only now
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
    return this.#events?.send(message) ?? false;
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
  #fitUplink() {
    if (this.#options.uplink === 'full') return;
    const mine = (this.room.views ?? []).flatMap((v) => v.tiles).filter((t) => t.participant === this.id && t.source !== 'screen');
    this.#connection?.fitCamera(mine.sort((a, b) => b.width * b.height - a.width * a.height)[0]);
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
    if (was && is && was !== is) this.#events?.open(); // ICE has changed networks by itself: a socket cannot
    this.#emit('stats', summarise(now, before));
  }

  #emit(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

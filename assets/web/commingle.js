// commingle.js: join a commingle room from any web page.
//
//     import { join } from 'https://your.server/commingle.js';
//     const stream = await navigator.mediaDevices.getUserMedia({ audio: true, video: true });
//     const session = await join({ room: 'standup', name: 'Ann', stream });
//     video.srcObject = session.stream;          // one video, one audio
//     session.addEventListener('layout', () => console.log(session.tile()));
//     await session.leave();
//
// Owns: the sent tracks, the room document, the connection (connection.js) and the events (events.js). The latter two
// are replaced when the session is lost; `stream` stays the same object. Does not know: SDP, any page. See
// docs/client.md.

import { Connection } from './connection.js';
import { Direct } from './direct.js';
import { Events } from './events.js';
import { JoinError, Backoff, refusal, Server } from './server.js';
import { applyEvent, sentFrom, summarise } from './wire.js';

export { JoinError };

const CREDENTIALS_FOR = 240_000; // ms during which TURN credentials are reused
const FIT_EVERY = 2600; // ms; the server takes four sizes in ten seconds
const HIDDEN = { width: 160, height: 90 }; // the size of a camera that is not shown, and may be again
const SCREEN = { frameRate: { ideal: 15, max: 30 } }; // text does not need a higher frame rate

/** The rectangle of the own camera in a direct call. */
const corner = (canvas) => {
  const [width, height, margin] = [canvas.width * 0.26, canvas.height * 0.26, canvas.height * 0.03];
  return {
    x: canvas.width - width - margin,
    y: canvas.height - height - margin,
    width,
    height,
    source: 'camera',
    canvas,
    direct: true,
  };
};

/**
 * Joins a room. Resolves after the server's answer; rejects with a JoinError if the server refuses.
 *
 * @param {object} options
 * @param {string} options.room           1 to 64 letters of any script, digits, `-` and `_`
 * @param {string} [options.name]         shown on the tile
 * @param {MediaStream} [options.stream]  at most one audio and one video track; the session stops them on leave()
 * @param {{audio?: boolean, video?: boolean}} [options.send]
 *                                        kinds to negotiate for sending although `stream` has no such
 *                                        track yet, so that turning them on later needs no new connection
 * @param {string} [options.url]          the server; default: where this module was loaded from
 * @param {string} [options.token]        bearer token, if the server requires one
 * @param {string} [options.tier]         `auto`, `high`, `medium`, `low`, `slides`, `audio`
 * @param {string} [options.view]         the name of a view, or `own`; default `program`
 * @param {string | object?} [options.layout]  the layout of the view `own`: a kind, or an object with options;
 *                                        default: the room's
 * @param {string?} [options.canvas]      the canvas of the view `own`, for example `720x1280`; default: the room's
 * @param {string?} [options.selfView]    `shown` or `hidden`
 * @param {RTCIceServer[]} [options.iceServers]  in addition to those of the server
 * @param {'all'|'relay'} [options.iceTransportPolicy]  `relay` connects by TURN only
 * @param {boolean} [options.direct]      false: never send directly to another participant (`rooms.direct_for_two`)
 * @param {'fit'|'full'} [options.uplink] `fit` (default) sends the camera no larger than its tile
 * @param {(track: MediaStreamTrack, stream: MediaStream) => void} [options.onTrack]
 * @param {AbortSignal} [options.signal]  leaves the room when aborted
 * @returns {Promise<Session>}
 */
export async function join(options) {
  const session = new Session(options);
  await session.start();
  return session;
}

/**
 * A session in a room. An EventTarget; the payload of each event is in `detail`: `state` (connecting, connected,
 * reconnecting, left; with `reason`, `code` (`removed`, `refused` in the lobby, or `ended`), with `error` if the
 * server refused to rejoin, and with `unreachable`), `room` (the whole document), `joined`, `updated` (`{ participant
 * }`), `left` (`{ participant, reason }`: left, removed or lost), `layout` (`{ view, canvas, tiles }`), `wanted` (`{
 * source, width, height }`: the size at which the own source is shown at most), `speaker` (`{ participant, speaking
 * }`), `levels` (`{ levels: [{ participant, dbov }] }`), `chat`, `hand`, `reaction`, `lobby`, `muted`,
 * `asked_to_unmute`, `warning`, `caption`, `error` (the fields of docs/api.md), `mixer`, `recording` (`{ recording
 * }`), `broadcast` (`{ broadcast }`), `input` (`{ input }`), `ended`, `stats` (every second, see `stats()`), `local`
 * (the own microphone, camera or screen changed), `unplugged` (`{ kind }`: the device of a sent track is gone).
 */
export class Session extends EventTarget {
  /** The received MediaStream: the same object until the session ends. */
  stream = new MediaStream();
  /** The sent MediaStream. */
  local = new MediaStream();
  /** The latest room document. */
  room = { participants: [], views: [] };
  /** `connecting`, `connected`, `reconnecting` or `left`. */
  state = 'connecting';
  /** Whether the last attempt to reach the server failed. */
  unreachable = false;
  /** The own participant id, for example `p3`; null before the answer. */
  id = null;
  /** The session URL, a secret that allows to end the session. */
  location = null;

  #options;
  #server;
  #connection = null;
  #events = null;
  #direct;
  #backoff = new Backoff();
  #screen = null;
  #negotiated;
  #servers = []; // the ICE servers announced by the server
  #serversSince = -Infinity;
  #everConnected = false;
  #rejoining = false;
  /** @type {ReturnType<typeof setInterval> | number} */
  #ticks = 0;
  #lastStats = null;
  #statsOf = null; // the RTCPeerConnection
  #updateSentAt = -Infinity;
  #constraints = {};
  #closed = new AbortController();
  /** @type {ReturnType<typeof setTimeout> | number} */
  #fitTimer = 0;
  #fittedAt = -Infinity;

  constructor(options) {
    super();
    this.#options = { ...options };
    this.#server = new Server(
      new URL(options.url ?? new URL('.', import.meta.url), globalThis.location?.href).href,
      options.token,
    );
    for (const track of options.stream?.getTracks() ?? []) this.#adopt(track);
    this.#negotiated = {
      audio: options.send?.audio ?? this.local.getAudioTracks().length > 0,
      video: options.send?.video ?? this.local.getVideoTracks().length > 0,
    };
    this.#direct = new Direct({
      send: (message) => this.#send(message),
      tracks: () => this.local.getTracks(),
      iceServers: () => [...(options.iceServers ?? []), ...this.#servers],
      changed: (stream, done) => this.#directChanged(stream, done),
    });
    const { signal } = this.#closed;
    globalThis.addEventListener?.('pagehide', () => this.leave('page closed'), { signal });
    globalThis.addEventListener?.('online', () => this.#networkChanged(), { signal });
    const network = globalThis.navigator?.connection;
    let kind = network?.type; // only on phones; `change` fires for other changes too
    network?.addEventListener(
      'change',
      () => {
        if (network.type === kind) return;
        kind = network.type;
        this.#networkChanged();
      },
      { signal },
    );
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

  // Sending ---------------------------------------------------------------------------------------------------------

  /** Whether the microphone is on. */
  get microphone() {
    return this.local.getAudioTracks().some((t) => t.enabled && t.readyState === 'live');
  }

  /** Whether the camera is on. */
  get camera() {
    return this.local.getVideoTracks().some((t) => t.enabled && t.readyState === 'live');
  }

  /** Mutes (false), unmutes (true; requests a microphone if there is none), or uses another track. */
  async setMicrophone(on) {
    const track = this.local.getAudioTracks()[0];
    if (typeof on === 'object') await this.replaceTrack(on);
    else if (on && !track) await this.replaceTrack(await this.#capture('audio'));
    else if (track) track.enabled = on;
    this.#localChanged();
  }

  /** Turns the camera off (false; releases the device) or on (true), or uses another track. */
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

  /** Whether a screen is shared. */
  get screen() {
    return this.#screen !== null;
  }

  /** Shares a screen (true: the browser asks which; or a track), or stops sharing (false). */
  async setScreen(on) {
    if (!on) return this.#screen && this.#showScreen(null);
    const track =
      on === true ? (await navigator.mediaDevices.getDisplayMedia({ video: SCREEN })).getVideoTracks()[0] : on;
    if (this.state === 'left') return track.stop();
    track.contentHint ||= 'detail';
    // The browser's own stop button ends the track.
    track.addEventListener('ended', () => this.#screen === track && this.#showScreen(null).catch(() => {}));
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

  /** The id of the device of a kind that was used last, `audio` or `video`; undefined if none was. */
  deviceOf(kind) {
    const wanted = this.#constraints[kind]?.deviceId;
    return wanted?.exact ?? wanted?.ideal;
  }

  /**
   * Uses another microphone (`audio`) or camera (`video`), now or when it is turned on: `constraints` are `{ deviceId }`
   * or `{ facingMode }`. With `first` the old camera is released first: a phone opens one at a time.
   */
  async useDevice(kind, constraints, { first = false } = {}) {
    const before = this.#constraints[kind];
    const track = this.local.getTracks().find((t) => t.kind === kind);
    this.#constraints[kind] = constraints;
    if (!track) return;
    const releases = first && kind === 'video';
    try {
      if (releases) await this.setCamera(false);
      const next = await this.#capture(kind);
      next.enabled = track.enabled; // a muted microphone stays muted
      await this.replaceTrack(next);
    } catch (error) {
      this.#constraints[kind] = before;
      if (releases) await this.setCamera(true).catch(() => {}); // the old one again
      throw error;
    }
  }

  /** Replaces the track of the same kind, which is stopped. Needs no renegotiation if the kind was negotiated. */
  async replaceTrack(track) {
    const old = this.local.getTracks().find((t) => t.kind === track.kind);
    if (this.state === 'left') return track.stop();
    if (old && old !== track) {
      track.enabled = old.enabled;
      this.local.removeTrack(old);
      old.stop();
    }
    this.#adopt(track);
    if (this.#negotiated[track.kind]) {
      await this.#sendInstead(track.kind, track);
    } else {
      this.#negotiated[track.kind] = true; // not negotiated: only a new connection can send it
      this.#rejoin(true);
    }
    this.#localChanged();
  }

  /** Replaces a track on the connection to the server, on the direct one, or on both while the latter is set up. */
  async #sendInstead(kind, track) {
    if (!this.direct) await this.#connection?.send(kind, track);
    await this.#direct.replace(kind, track);
  }

  /** The RTCPeerConnection that carries media now. */
  get #mediaConnection() {
    return this.direct ? this.#direct.peer : this.#connection?.peer;
  }

  /** Switches to the direct `stream`, or back to the mix (null); `done` then closes the direct connection. */
  async #directChanged(stream, done) {
    const connection = this.#connection;
    for (const kind of ['audio', 'video']) {
      const track = stream ? null : (this.local.getTracks().find((t) => t.kind === kind) ?? null);
      connection?.send(kind, track).catch(() => {}); // the connection is closed; the next one sends the track
    }
    this.#emit('layout', this.view());
    if (!stream) {
      await connection?.moves(); // until then the direct video stays visible
      done();
    }
    const received = stream?.getTracks() ?? connection?.received ?? [];
    if (connection === this.#connection && this.direct === Boolean(stream))
      for (const track of received) this.#receive(track);
    this.#emitLocal();
  }

  /**
   * Changes the received view: `view`, `layout`, `canvas` and `selfView` as in the options of `join`; null for the
   * layout or the canvas of the room. Rejects with a JoinError.
   * @param {{ view?: string, layout?: string | object | null, canvas?: string | null, selfView?: string }} changes
   */
  async setView({ view, layout, canvas, selfView }) {
    const [width, height] = (canvas ?? '').split('x').map(Number);
    const body = {
      view,
      layout: typeof layout === 'string' ? { kind: layout } : layout,
      canvas: canvas && { width, height },
      self_view: selfView,
    };
    await this.call(`/v1/rooms/{room}/participants/${this.id}`, { method: 'PATCH', body });
    // A new connection after a loss asks for the same.
    const own = this.#options;
    if (view ?? layout ?? canvas) own.view = view ?? 'own';
    const isOwn = own.view === 'own';
    own.layout = isOwn ? (layout === undefined ? own.layout : layout) : null;
    own.canvas = isOwn ? (canvas === undefined ? own.canvas : canvas) : null;
    own.selfView = selfView ?? own.selfView;
  }

  /**
   * Sends a chat message to the room, or only to these participants or the moderators; false without a connection.
   * @param {string} text
   * @param {string[] | 'moderators'} [to]
   */
  sendChat(text, to) {
    return this.#send({ type: 'chat', text, to });
  }

  /** Raises or lowers the own hand; a moderator lowers that of another participant. False without a connection. */
  raiseHand(raised, participant = this.id) {
    return this.#send({ type: 'hand', raised, ...(participant === this.id ? {} : { participant }) });
  }

  /** Sends a reaction, an emoji that is shown for a moment; false without a connection. */
  react(emoji) {
    return this.#send({ type: 'reaction', emoji });
  }

  /**
   * Calls the server's API (docs/api.md) as this participant; `{room}` in `path` is this room. Resolves with the JSON
   * response or null; rejects with a JoinError. A moderator starts a recording with
   * `call('/v1/rooms/{room}/recordings', { method: 'POST', body: {} })`.
   * @param {string} path
   * @param {{ method?: string, body?: unknown }} request
   */
  async call(path, { method = 'GET', body } = {}) {
    const headers = body === undefined ? {} : { 'Content-Type': 'application/json' };
    const response = await this.#server.fetch(this.url(path), {
      method,
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
    });
    if (!response.ok) throw await refusal(response);
    return response.status === 204 ? null : response.json();
  }

  /** The URL of an API path with the session as credential, for a `<video>` or a link, which cannot send headers. */
  url(path) {
    const url = this.#server.at(path.replace('{room}', encodeURIComponent(this.#options.room)));
    const session = this.location?.split('/').pop();
    if (session) url.searchParams.set('session', session);
    return url.href;
  }

  /** Whether media goes directly to the other participant. */
  get direct() {
    return this.#direct.on;
  }

  /** The own tile in the watched view, in pixels of `canvas`: `{ x, y, width, height, canvas }`, or null. */
  tile(source = 'camera') {
    const view = this.view();
    if (this.direct) return source === 'camera' ? corner(view?.canvas ?? { width: 1280, height: 720 }) : null;
    const tile = view?.tiles.find((t) => t.participant === this.id && (t.source ?? 'camera') === source);
    return tile ? { ...tile, canvas: view.canvas } : null;
  }

  /** `shown`, or `hidden` if the watched view is to be without the own tiles. */
  get selfView() {
    return this.#options.selfView ?? 'shown';
  }

  /** The watched view: `{ view, canvas, tiles }`, or null before the first layout. */
  view() {
    const views = this.room.views ?? [];
    const name = this.self?.receives?.view ?? this.self?.view ?? this.#options.view ?? 'program';
    return views.find((v) => v.view === name) ?? (views.length === 1 ? views[0] : null);
  }

  /** The own participant document, or null; its `state` is `lobby` until a moderator admits the participant. */
  get self() {
    const { participants, waiting = [] } = this.room;
    return [...participants, ...waiting].find((p) => p.id === this.id) ?? null;
  }

  /**
   * `{ streams, kbpsDown, kbpsUp, fps, width, height, codec, audioCodec, packetsLost, freezes, rtt, … }` since the
   * last second.
   */
  async stats() {
    const peer = this.#mediaConnection;
    const now = await peer?.getStats();
    return now ? summarise(now, this.#statsOf === peer ? this.#lastStats : null) : null;
  }

  /** Leaves the room and stops the sent tracks. Safe to call twice. */
  async leave(reason = 'left') {
    if (this.state === 'left') return;
    const ended = this.#endSession();
    this.#close(reason);
    await ended;
  }

  // Joining ---------------------------------------------------------------------------------------------------------

  /** One attempt to join: connection, answer and events. */
  async #connect() {
    if (performance.now() - this.#serversSince > CREDENTIALS_FOR) this.#servers = [];
    const {
      room,
      name,
      tier,
      view,
      layout,
      canvas,
      selfView,
      iceServers: own = [],
      iceTransportPolicy: policy = 'all',
    } = this.#options;
    const connection = new Connection({
      server: this.#server,
      backoff: this.#backoff,
      ice: { own, named: this.#servers, policy },
      stream: this.local,
      kinds: this.#negotiated,
      screen: this.#screen,
      simulcast: this.#options.uplink !== 'full',
      callbacks: {
        track: (track) => this.#receive(track),
        changed: () => this.#connectionChanged(),
        restarted: () => this.#everConnected && this.#events?.open(), // the old WebSocket may hang on a lost network
        lost: (error) => this.#rejoin(false, error?.retryAfter),
      },
    });
    this.#connection = connection;
    this.#lastStats = null;
    this.#refreshState();

    const url = this.#server.at(`/v1/rooms/${encodeURIComponent(room)}/participants`);
    const query = { name, tier, view, layout, canvas, self_view: selfView };
    for (const [key, value] of Object.entries(query))
      if (value) url.searchParams.set(key, typeof value === 'string' ? value : JSON.stringify(value));
    await connection.offer(url, this.#closed.signal);
    if (this.state === 'left') {
      this.#server.end(connection.location);
      throw new JoinError('Left while joining.', 0, {});
    }
    this.location = connection.location;
    this.id = connection.participant;
    if (connection.named.length) [this.#servers, this.#serversSince] = [connection.named, performance.now()];
    this.#events = new Events(this.#server, room, this.location, {
      received: (event) => {
        this.#handle(event);
        this.#setReachable(true);
      },
      unreachable: () => this.#setReachable(false),
      ended: () => {
        this.location = null; // there is no session to end
        this.#rejoin();
      },
    });
    await connection.accept();
    if (!this.id) this.#fetchId();
    this.#fitUplink();
  }

  async #fetchId() {
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

  // Reconnecting ----------------------------------------------------------------------------------------------------

  #connectionChanged() {
    if (this.#connection?.connected) {
      this.#everConnected = true;
      this.#tick();
    }
    this.#refreshState();
  }

  #refreshState() {
    if (this.state === 'left') return;
    const connected = this.#connection?.connected && !this.#rejoining && !this.unreachable;
    this.#setState(connected ? 'connected' : this.#everConnected || this.#rejoining ? 'reconnecting' : 'connecting');
  }

  #setState(state, reason, error, code) {
    if (state === this.state) return;
    this.state = state;
    this.#emit('state', { state, reason, error, code, unreachable: this.unreachable });
  }

  #setReachable(reachable) {
    if (this.state === 'left') return;
    const changed = this.unreachable === reachable;
    this.unreachable = !reachable;
    const { state } = this;
    this.#refreshState();
    if (changed && state === this.state) this.#emit('state', { state, unreachable: this.unreachable });
  }

  /** The network has changed: existing connections may be broken without an error. */
  #networkChanged() {
    this.#backoff.wake();
    if (this.#everConnected) this.#connection?.restartIce();
  }

  /** Joins again, with retries until the server accepts or refuses. */
  async #rejoin(now = false, least = 0) {
    if (this.#rejoining || this.state === 'left') return;
    this.#rejoining = true;
    this.#refreshState();
    for (;;) {
      this.#endSession();
      this.#disconnect();
      if (!now) await this.#backoff.pause(least);
      if (this.state === 'left') return;
      now = false;
      try {
        this.#rejoining = false;
        await this.#connect();
        this.#setReachable(true);
        return;
      } catch (error) {
        if (this.state === 'left') return;
        this.#rejoining = true;
        if (error instanceof JoinError && !error.temporary) return this.#close(error.message, error);
        this.#setReachable(error.status !== 0);
        least = error.retryAfter;
      }
    }
  }

  /** Ends the session at the server. */
  async #endSession() {
    const { location } = this;
    this.location = null;
    if (location) await this.#server.end(location);
  }

  #disconnect() {
    this.#direct.end();
    const [connection, events] = [this.#connection, this.#events];
    this.#connection = this.#events = null;
    connection?.close();
    events?.close();
  }

  #close(reason, error, code) {
    this.#setState('left', reason, error, code);
    this.#closed.abort();
    clearInterval(this.#ticks);
    clearTimeout(this.#fitTimer);
    this.#disconnect();
    this.#backoff.wake();
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
      if (id === this.id) return this.#left(detail.reason, before);
      detail.participant = [...before.participants, ...(before.waiting ?? [])].find((p) => p.id === id) ?? { id };
    }
    if (type === 'ended') {
      this.#emit('ended', detail);
      if (detail.reason === 'empty') return this.#rejoin(); // the server considered this session lost
      return this.#roomEnded();
    }
    if (type === 'direct') return this.#direct.handle(detail);
    if (type === 'ice_restart') return this.#connection?.restartIce(); // the server receives nothing from this client
    if (type === 'room') {
      this.#recognise();
      this.#announceDirect();
    }
    const isOwn = type === 'wanted' || (type === 'updated' && detail.participant?.id === this.id);
    if (type === 'room' || type === 'layout' || isOwn) this.#fitUplink();
    if (type === 'room' || (type === 'joined' && detail.participant?.id === this.id)) this.#tellMuted();
    if (type === 'updated' && detail.participant?.id === this.id) this.#applyMute(detail.participant);
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

  /** The server has removed this participant, by a moderator or because no media arrived. */
  #left(reason, before) {
    this.location = null; // there is no session to end
    const waited = before.waiting?.some((p) => p.id === this.id);
    if (reason !== 'removed') this.#rejoin();
    else if (waited) this.#close('You were not admitted to the room.', undefined, 'refused');
    else this.#close('You were removed from the room.', undefined, 'removed');
  }

  /** The room has ended. If the server is only shutting down, joins the next one. */
  async #roomEnded() {
    this.location = null;
    this.#events?.close(); // the server closes them too
    const ready = await this.#server.fetch(this.#server.at('/readyz')).catch(() => null);
    if (ready?.ok) this.#close('The room was ended.', undefined, 'ended');
    else this.#rejoin();
  }

  /** Applies a mute by a moderator; only this client unmutes. */
  #applyMute({ audio_muted: audioMuted, video_muted: videoMuted, muted_by: mutedBy, video_stopped_by: stoppedBy }) {
    const late = performance.now() - this.#updateSentAt < 1500; // the event may answer an older state
    if (this.microphone && (mutedBy || (audioMuted === true && !late))) this.setMicrophone(false);
    if (this.camera && (stoppedBy || (videoMuted === true && !late))) this.setCamera(false);
  }

  /** Announces support for direct media once there is a track; not with `relay`, which hides the client's address. */
  #announceDirect() {
    const { direct = true, iceTransportPolicy } = this.#options;
    if (direct && iceTransportPolicy !== 'relay' && this.local.getTracks().length)
      this.#send({ type: 'direct', state: 'able' });
  }

  #localChanged() {
    this.#announceDirect(); // this may be the first track
    this.#tellMuted();
    this.#emitLocal();
  }

  #emitLocal() {
    this.#emit('local', { microphone: this.microphone, camera: this.camera, screen: this.screen });
  }

  #tellMuted() {
    const self = this.self;
    if (!self) return; // not connected yet: sent when the room lists this participant
    const update = {};
    if (this.#negotiated.audio && self.audio_muted !== !this.microphone) update.audio_muted = !this.microphone;
    if (this.#negotiated.video && self.video_muted !== !this.camera) update.video_muted = !this.camera;
    if (Object.keys(update).length && this.#send({ type: 'update', ...update })) {
      this.#updateSentAt = performance.now();
      this.room = applyEvent(this.room, { type: 'updated', participant: { id: this.id, ...update } });
    }
  }

  #send(message) {
    return this.#events?.send(message) ?? false;
  }

  // Helpers ---------------------------------------------------------------------------------------------------------

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
    this.#emit('unplugged', { kind: track.kind });
  }

  async #capture(kind) {
    const shape = kind === 'video' ? { width: { ideal: 1280 }, height: { ideal: 720 }, frameRate: { ideal: 30 } } : {};
    const stream = await navigator.mediaDevices.getUserMedia({ [kind]: { ...shape, ...this.#constraints[kind] } });
    return stream.getTracks()[0];
  }

  /** Fits the camera now, or soon: while many people join, each change would be a keyframe of another size. */
  #fitUplink() {
    if (this.#options.uplink === 'full' || this.#fitTimer) return;
    this.#fitTimer = setTimeout(
      () => {
        this.#fitTimer = 0;
        this.#fittedAt = performance.now();
        this.#fitNow();
      },
      Math.max(0, this.#fittedAt + FIT_EVERY - performance.now()),
    );
  }

  /** Sends the camera no larger than the server needs it; before the server has said so, than its largest tile. */
  #fitNow() {
    const views = this.room.views ?? [];
    const mine = views.flatMap((v) => v.tiles).filter((t) => t.participant === this.id && t.source !== 'screen');
    const camera = this.self?.sends?.find(({ kind }) => kind === 'camera');
    const size = camera?.wanted ?? mine.sort((a, b) => b.width * b.height - a.width * a.height)[0];
    const tiles = Math.max(0, ...views.map((v) => v.tiles.length));
    this.#connection?.fitCamera(size?.width === 0 ? HIDDEN : size, { tiles, decoded: camera?.encoding });
  }

  async #tick() {
    const peer = this.#mediaConnection;
    if (peer?.connectionState !== 'connected') return;
    const now = await peer.getStats();
    if (peer !== this.#mediaConnection) return;
    const before = this.#statsOf === peer ? this.#lastStats : null;
    [this.#lastStats, this.#statsOf] = [now, peer];
    if (!before) return;
    const [was, is] = [sentFrom(before), sentFrom(now)];
    if (was && is && was !== is) this.#events?.open(); // ICE has switched networks by itself, which a WebSocket cannot
    this.#emit('stats', summarise(now, before));
  }

  #emit(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

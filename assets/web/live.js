// live.js: the page that plays the HLS broadcast of a room, at /live/{room}.
//
// Owns: what the page shows in each state of the broadcast, and the controls. `vendor/hls.js` plays; Safari plays HLS
// itself. Does not know: the call, the API. The path names the room; `?token=` and `?session=` are passed on.

import { advise, linkTo, nextTry, verdict } from './live-state.js';
import { memory } from './memory.js';
import { t } from './texts.js';

const HLS_JS = './vendor/hls.js/hls.min.mjs';
const PROBE_TIMEOUT = 15_000; // ms; the server itself waits up to 8 s for a playlist
const IDLE = 3_000; // ms without a movement before the controls disappear
const STUCK = 15_000; // ms after which a player that shows nothing is replaced
const LOADING = 800; // ms without a new picture before the page says so
const LATE = 15; // seconds behind the live edge from which a button leads back

const $ = (id) => /** @type {any} */ (document.getElementById(id));
const video = /** @type {HTMLVideoElement} */ ($('video'));
const query = new URLSearchParams(location.search);
const given = ['token', 'session'].find((name) => query.get(name));
const credentials = given ? `?${given}=${encodeURIComponent(query.get(given))}` : '';
const room = roomOfPath();
const base = `/hls/${encodeURIComponent(room ?? '')}/`;

let state = 'connecting';
/** Whether this page has played the broadcast. */
let hasPlayed = false;
let audioOnly = query.has('audio');
let isPaused = false;
let wantsCaptions = memory.get('captions') === 'on';
let player = null;
let attempt = 0; // counts the attempts to play, of which only the latest one goes on

function roomOfPath() {
  try {
    return decodeURIComponent(location.pathname.split('/')[2] ?? '').normalize('NFC') || null;
  } catch {
    return null;
  }
}

const sleep = (ms) =>
  new Promise((resolve) => {
    setTimeout(resolve, ms);
  });

// States ----------------------------------------------------------------------------------------------------------

/**
 * Shows a state: `connecting`, `waiting`, `live`, `buffering`, `blocked` (until a click), `ended`, `unreachable`,
 * `denied` or `misnamed`.
 */
function show(next) {
  state = next;
  const { headline, advice, banner, note } = advise(state, { hasPlayed, hasToken: Boolean(credentials), audioOnly });
  document.body.dataset.state = state;
  // The last picture stays while the server is unreachable.
  document.body.classList.toggle('has-picture', hasPlayed && state === 'unreachable');
  $('badge').hidden = !['live', 'buffering'].includes(state);
  $('headline').textContent = headline;
  $('advice').textContent = advice;
  $('banner').textContent = banner;
  $('banner').hidden = !banner;
  $('note').textContent = note;
  document.title = `${state === 'live' ? '● ' : ''}${room ?? t('live.live')} · commingle`;
}

/** The state of the broadcast at the server, without playing it. */
async function probe() {
  try {
    const response = await fetch(`${base}audio/index.m3u8${credentials}`, {
      cache: 'no-store',
      credentials: 'omit',
      signal: AbortSignal.timeout(PROBE_TIMEOUT),
    });
    const playlist = response.ok ? await response.text() : '';
    return verdict(response.status, playlist, { hasPlayed, hasToken: given === 'token' });
  } catch {
    return 'unreachable';
  }
}

/** Asks until the broadcast can be played. Only one loop runs; a later call replaces it. */
async function wait() {
  const mine = ++attempt;
  for (let tries = 0; mine === attempt; tries += 1) {
    const found = await probe();
    if (mine !== attempt) return;
    if (found === 'live') return void play();
    show(found);
    if (found === 'denied' || found === 'misnamed') return;
    await sleep(nextTry(found, tries, Math.random()));
  }
}

/** Whether the browser plays HLS best by itself: Safari. Others play it less well than hls.js, or not at all. */
const isNative = () =>
  navigator.vendor.startsWith('Apple') && video.canPlayType('application/vnd.apple.mpegurl') !== '';

async function play() {
  try {
    if (!player || player.audioOnly !== audioOnly) {
      player?.end();
      player = isNative() ? new Native() : await withHlsJs();
      player.audioOnly = audioOnly;
    }
    const mine = attempt;
    setTimeout(() => {
      if (mine !== attempt || ['live', 'buffering', 'blocked'].includes(state)) return;
      player?.end();
      player = null;
      lost();
    }, STUCK);
    player.begin(`${base}${audioOnly ? 'audio/' : ''}index.m3u8${credentials}`);
    if (isPaused) show('live');
    else await start();
  } catch {
    lost();
  }
}

/** Starts the element. Browsers may allow this only without sound, or only after a click. */
async function start() {
  try {
    await video.play();
  } catch (error) {
    if (error.name !== 'NotAllowedError') return;
    if (audioOnly || video.muted) return askToBegin();
    video.muted = true;
    $('unmute').hidden = false;
    await video.play().catch(askToBegin);
  }
}

function askToBegin() {
  show('blocked');
  $('begin').hidden = false;
}

/** The broadcast cannot be loaded any more. */
function lost() {
  void wait();
}

// Players ---------------------------------------------------------------------------------------------------------

class Native {
  audioOnly = false;

  constructor() {
    this.onerror = () => lost();
    video.addEventListener('error', this.onerror);
    this.ontracks = () => this.showCaptions();
    video.textTracks.addEventListener('addtrack', this.ontracks);
    video.textTracks.addEventListener('removetrack', this.ontracks);
  }

  get #captions() {
    return [...video.textTracks].filter(({ kind }) => kind === 'subtitles' || kind === 'captions');
  }

  get hasCaptions() {
    return this.#captions.length > 0;
  }

  showCaptions() {
    for (const track of this.#captions) track.mode = wantsCaptions ? 'showing' : 'disabled';
    drawControls();
  }

  begin(url) {
    video.src = url;
  }

  /** Seconds behind the newest media, if known. */
  get behind() {
    const { seekable, currentTime } = video;
    return seekable.length ? seekable.end(seekable.length - 1) - currentTime : 0;
  }

  toEdge() {
    video.currentTime = video.seekable.end(video.seekable.length - 1) - 2;
  }

  end() {
    video.removeEventListener('error', this.onerror);
    video.textTracks.removeEventListener('addtrack', this.ontracks);
    video.textTracks.removeEventListener('removetrack', this.ontracks);
    video.removeAttribute('src');
    video.load();
  }
}

class HlsPlayer {
  audioOnly = false;
  #hls = null;
  #url = '';
  #repaired = 0;

  constructor(library) {
    this.Hls = library;
  }

  begin(url) {
    // After a pause of the server the same player continues: it keeps the last picture meanwhile.
    if (this.#hls && this.#url === url && this.#repaired < 3) {
      this.#repaired += 1;
      return this.#hls.startLoad(-1);
    }
    this.end();
    const { Hls } = this;
    // A worker would need the content security policy to allow blobs, and fragmented MP4 needs no remultiplexing.
    this.#hls = new Hls({ enableWorker: false, lowLatencyMode: true, backBufferLength: 20, liveMaxLatencyDuration: 20,
      liveSyncDuration: 3 });
    this.#url = url;
    this.#repaired = 0;
    this.#hls.on(Hls.Events.ERROR, (_, { fatal, type }) => {
      if (!fatal) return;
      if (type === Hls.ErrorTypes.MEDIA_ERROR && this.#repaired < 3) {
        this.#repaired += 1;
        return this.#hls.recoverMediaError();
      }
      this.#hls.stopLoad();
      if (type !== Hls.ErrorTypes.NETWORK_ERROR) this.#repaired = 3; // begin() makes another player
      lost();
    });
    // After the event hls.js chooses a track itself.
    this.#hls.on(Hls.Events.SUBTITLE_TRACKS_UPDATED, () => setTimeout(() => this.showCaptions()));
    this.#hls.on(Hls.Events.FRAG_BUFFERED, () => (this.#repaired = 0));
    this.#hls.loadSource(url);
    this.#hls.attachMedia(video);
  }

  get hasCaptions() {
    return (this.#hls?.subtitleTracks.length ?? 0) > 0;
  }

  showCaptions() {
    if (this.hasCaptions) {
      this.#hls.subtitleDisplay = wantsCaptions;
      this.#hls.subtitleTrack = wantsCaptions ? 0 : -1;
    }
    drawControls();
  }

  get behind() {
    return this.#hls?.latency ?? 0;
  }

  toEdge() {
    video.currentTime = this.#hls.liveSyncPosition ?? video.currentTime;
  }

  end() {
    this.#hls?.destroy();
    this.#hls = null;
  }
}

async function withHlsJs() {
  const { default: Hls } = await import(HLS_JS);
  if (!Hls.isSupported()) return new Native();
  return new HlsPlayer(Hls);
}

// Controls --------------------------------------------------------------------------------------------------------

const icon = (id, name) => $(id).querySelector('use').setAttribute('href', `#i-${name}`);

function drawControls() {
  icon('play', video.paused ? 'play' : 'pause');
  $('play').setAttribute('aria-label', t(video.paused ? 'live.play' : 'live.pause'));
  const silent = video.muted || video.volume === 0;
  icon('mute', silent ? 'sound-off' : 'sound');
  $('mute').setAttribute('aria-label', t(silent ? 'live.unmute' : 'live.mute'));
  $('volume').value = String(silent ? 0 : video.volume);
  if (!silent) $('unmute').hidden = true;
  $('audio').setAttribute('aria-pressed', String(audioOnly));
  $('captions').hidden = !player?.hasCaptions;
  $('captions').setAttribute('aria-pressed', String(wantsCaptions));
  document.body.classList.toggle('audio-only', audioOnly);
  document.body.classList.toggle('playing', !video.paused && state === 'live');
  $('edge').hidden = video.paused || (player?.behind ?? 0) < LATE;
}

function togglePlay() {
  isPaused = !video.paused;
  if (isPaused) return video.pause();
  player?.toEdge();
  void start();
}

$('play').onclick = togglePlay;
$('begin').onclick = () => {
  $('begin').hidden = true;
  void start();
};
$('mute').onclick = $('unmute').onclick = () => {
  video.muted = !video.muted;
  if (!video.muted && video.volume === 0) video.volume = 1;
};
$('volume').oninput = () => {
  video.volume = Number($('volume').value);
  video.muted = video.volume === 0;
};
$('edge').onclick = () => player?.toEdge();
$('full').onclick = () => {
  if (document.fullscreenElement) void document.exitFullscreen();
  else if ($('stage').requestFullscreen) void $('stage').requestFullscreen();
  // On iPhones only the video itself can fill the screen.
  else /** @type {any} */ (video).webkitEnterFullscreen?.();
};
$('captions').onclick = () => {
  wantsCaptions = !wantsCaptions;
  memory.set('captions', wantsCaptions ? 'on' : 'off');
  player?.showCaptions();
};
$('audio').onclick = () => {
  audioOnly = !audioOnly;
  query[audioOnly ? 'set' : 'delete']('audio', '');
  const search = query.toString().replace(/(^|&)audio=(&|$)/, '$1audio$2');
  history.replaceState(null, '', location.pathname + (search && `?${search}`));
  drawControls();
  if (['live', 'buffering'].includes(state)) void play();
};
$('share').onclick = async () => {
  // The link has the token only if the broadcast needs one, and never a session, which is personal.
  const open = await fetch(`${base}index.m3u8`, { credentials: 'omit' }).catch(() => null);
  const url = linkTo(location, open?.status === 401 && given === 'token' ? credentials : '');
  try {
    if (navigator.share) return void (await navigator.share({ title: t('live.title', { room }), url }));
    await navigator.clipboard.writeText(url);
    $('note').textContent = t('call.link_copied');
  } catch (error) {
    if (error.name !== 'AbortError') $('note').textContent = url;
  }
};
addEventListener('keydown', (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target instanceof HTMLInputElement) return;
  if (event.key === 'm') $('mute').click();
  else if (event.key === 'c') $('captions').click();
  else if (event.key === 'f') $('full').click();
  else if (event.key === 'k' || (event.key === ' ' && !(event.target instanceof HTMLButtonElement))) {
    event.preventDefault();
    togglePlay();
  }
});

/** @type {any} */
let idleTimer;
function moved() {
  document.body.classList.remove('idle');
  clearTimeout(idleTimer);
  idleTimer = setTimeout(() => document.body.classList.toggle('idle', !video.paused && state === 'live'), IDLE);
}
for (const type of ['pointermove', 'pointerdown', 'keydown', 'focusin']) addEventListener(type, moved);

for (const type of ['play', 'pause', 'volumechange', 'playing', 'timeupdate'])
  video.addEventListener(type, drawControls);
video.addEventListener('playing', () => {
  hasPlayed = true;
  $('begin').hidden = true;
  attempt += 1; // ends the loop of wait()
  show('live');
  moved();
});
video.addEventListener('timeupdate', () => {
  if (state === 'buffering') show('live');
});
/** @type {any} */
let loading;
video.addEventListener('waiting', () => {
  clearTimeout(loading);
  loading = setTimeout(() => {
    if (state === 'live' && video.readyState < video.HAVE_FUTURE_DATA) show('buffering');
  }, LOADING);
});
video.addEventListener('ended', () => {
  show('ended');
  void wait();
});

$('room').textContent = room ?? t('live.live');
if (navigator.mediaSession) navigator.mediaSession.metadata = new MediaMetadata({ title: t('live.title', { room }) });
drawControls();
show('connecting');
if (room) void wait();
else show('misnamed');

// app.js: the page. It has two screens, the lobby and the call, and connects them with the session.

import { Badges } from './badges.js';
import { join } from './commingle.js';
import { Devices, Meter } from './devices.js';
import { drawOther, drawPeople, nameOf } from './people.js';
import { Stage } from './stage.js';
import { count, Studio } from './studio.js';
import { $, announce, el, freshRoomName, hueOf, memory, roomName, setIcon, setLabel, toast } from './ui.js';

const query = new URLSearchParams(location.search);
const watching = query.has('watch');
const portrait = matchMedia('(max-width: 760px) and (orientation: portrait)');
const devices = new Devices();
const stage = new Stage({
  stage: $('stage'),
  mix: $('mix'),
  tile: $('self-tile'),
  self: $('self'),
  label: $('self-label'),
});
const page = (window.commingle = { session: null });
let meter = null;
let studio = null;
let stay = null; // aborted at the end of the call, which removes its listeners
let asked = null; // settles when the browser has answered the permission request
const DEVICES_WITHIN = 1500; // ms that a join waits for camera and microphone; if already allowed, they take less

// The lobby -----------------------------------------------------------------------------------------------------------

$('name').value = query.get('name') || memory.get('name');
$('room').value = roomName(query.get('room') ?? '') || memory.get('room') || freshRoomName();
$('hint').textContent = query.get('room')
  ? 'Share the link of this page. Everyone who opens it joins the same call.'
  : 'Share the name of the room. Everyone who opens it joins the same call.';
if (watching) {
  $('eyebrow').textContent = 'Watching only';
  $('eyebrow').hidden = false;
}

const messages = {
  asking: 'Allow your camera and microphone, or join without them.',
  off: 'Your camera is off.',
  none: 'No camera found. Others will see your name.',
};

function drawLobby() {
  const { audio, video } = devices.status;
  const card = $('preview-card');
  const track = devices.track('video');
  card.dataset.state = watching ? 'watch' : video;
  if (track && /** @type {MediaStream} */ ($('preview').srcObject)?.getVideoTracks()[0] !== track)
    $('preview').srcObject = new MediaStream([track]);
  if (!track) $('preview').srcObject = null;
  const advice = watching ? '' : devices.advice;
  const inCard = video !== 'on' && advice !== ''; // the space of the missing camera shows the advice
  $('preview-text').textContent = watching
    ? 'You will see and hear everyone. Nobody will see or hear you.'
    : inCard
      ? advice
      : (messages[video] ?? '');
  $('preview-icon').setAttribute('href', watching ? '#i-eye' : video === 'asking' ? '#i-cam' : '#i-cam-off');
  /** @type {[string, HTMLElement, string][]} */
  const switches = [
    ['audio', $('lobby-mic'), 'mic'],
    ['video', $('lobby-cam'), 'cam'],
  ];
  for (const [kind, button, name] of switches) {
    const on = devices.status[kind] === 'on';
    button.classList.toggle('off', !on && devices.status[kind] !== 'asking');
    button.setAttribute('aria-pressed', String(on));
    button.setAttribute('aria-label', `${kind === 'audio' ? 'Microphone' : 'Camera'} ${on ? 'on' : 'off'}`);
    setIcon(button, on || devices.status[kind] === 'asking' ? name : `${name}-off`);
    drawChoices(kind, $(`${name}-select`));
  }
  $('devices').hidden = $('preview-controls').hidden = watching;
  $('device-note').textContent = inCard ? '' : advice;
  $('device-note').hidden = inCard || !advice;
  const silent = !watching && !['on', 'asking', 'off'].includes(audio) && !['on', 'asking', 'off'].includes(video);
  $('join').textContent = watching ? 'Watch' : silent ? 'Join to listen' : 'Join';
  measure(devices.track('audio'), (level) => {
    const bars = $('meter').children;
    for (let i = 0; i < bars.length; i += 1) bars[i].classList.toggle('lit', level * bars.length > i + 0.25);
    $('meter').setAttribute('aria-valuenow', String(Math.round(level * 100)));
  });
}

function drawChoices(kind, select) {
  const list = devices.available[kind].filter((d) => d.deviceId);
  const current = devices.track(kind)?.getSettings().deviceId ?? memory.get(`${kind}-device`);
  const empty = {
    asking: 'Waiting for permission',
    denied: 'Blocked',
    none: 'None found',
    insecure: 'Needs https',
    busy: 'In use',
  };
  const labels = list.map((d, i) => [
    d.deviceId,
    d.label.replace(/ \([0-9a-f]{4}:[0-9a-f]{4}\)$/, '') || `${kind === 'audio' ? 'Microphone' : 'Camera'} ${i + 1}`,
  ]);
  if (!labels.length) labels.push(['', empty[devices.status[kind]] ?? (kind === 'audio' ? 'Microphone' : 'Camera')]);
  const key = JSON.stringify([labels, current]);
  if (select.dataset.key === key) return;
  select.dataset.key = key;
  select.replaceChildren(...labels.map(([value, label]) => el('option', { value }, label)));
  if (list.some((d) => d.deviceId === current)) select.value = current;
  select.disabled = !list.length;
}

let measured = null;
function measure(track, show) {
  if (track === measured) return;
  measured = track;
  meter?.stop();
  meter = track ? new Meter(track, show) : null;
  if (!track) show(0);
}

function drawName() {
  $('preview-name').textContent = $('name').value.trim();
  $('preview-name').hidden = !$('name').value.trim() || watching;
}

devices.addEventListener('change', () => !page.session && !$('lobby').hidden && drawLobby());
$('lobby-mic').onclick = () => devices.toggle('audio');
$('lobby-cam').onclick = () => devices.toggle('video');
$('mic-select').onchange = () => devices.choose('audio', $('mic-select').value);
$('cam-select').onchange = () => devices.choose('video', $('cam-select').value);
$('name').oninput = () => {
  memory.set('name', $('name').value.trim());
  drawName();
};
$('room').onchange = () => ($('room').value = roomName($('room').value));
$('join-form').onsubmit = (event) => {
  event.preventDefault();
  enter();
};

function lobbyError(text, field) {
  $('error').textContent = text;
  $('error').hidden = !text;
  for (const id of ['name', 'room']) $(id).setAttribute('aria-invalid', String(field === id));
  if (field) $(field).focus();
}

function showLobby() {
  $('call').hidden = true;
  $('lobby').hidden = false;
  document.title = 'commingle';
  drawName();
  drawLobby();
  if (!watching) asked = devices.start();
}

// The call ------------------------------------------------------------------------------------------------------------

async function enter() {
  const name = $('name').value.trim();
  const room = ($('room').value = roomName($('room').value));
  if (!name && !watching) return lobbyError('Enter your name.', 'name');
  if (!room) return lobbyError('Enter a room name: letters, digits, - and _.', 'room');
  lobbyError('');
  memory.set('name', name);
  memory.set('room', room);
  query.set('room', room);
  history.replaceState(null, '', `?${query}`);

  $('join').disabled = true;
  await Promise.race([
    asked,
    new Promise((resolve) => {
      setTimeout(resolve, DEVICES_WITHIN);
    }),
  ]);
  $('join').disabled = false;
  const send = { audio: !watching && devices.may('audio'), video: !watching && devices.may('video') };
  const stream = devices.take();
  measure(null, () => {});
  showCall(room, name, stream);
  stay = new AbortController();
  const { signal } = stay;
  try {
    const session = await join({
      room,
      name: name || 'Guest',
      stream,
      send,
      url: location.origin,
      token: query.get('token') ?? undefined,
      tier: query.get('tier') ?? undefined,
      view: query.get('view') ?? undefined,
      signal,
    });
    page.session = session;
    bind(session, signal);
  } catch (error) {
    if (signal.aborted) return;
    for (const track of stream.getTracks()) track.stop();
    showLobby();
    lobbyError(error.message);
    $('join').focus();
  }
}

function showCall(room, name, stream) {
  $('lobby').hidden = true;
  $('preview').srcObject = null;
  $('call').hidden = false;
  $('call-heading').textContent = `Call in ${room}`;
  $('room-name').textContent = room;
  document.title = `${room} · commingle`;
  $('stage').dataset.state = 'connecting';
  $('waiting').lastElementChild.textContent = `Joining ${room}…`;
  $('stats').textContent = '';
  $('toasts').replaceChildren();
  $('banner').hidden = $('alone').hidden = true;
  $('people').replaceChildren();
  showPeople(portrait.matches || memory.get('people') === 'open', false);
  $('studio-toggle').hidden = true;
  showStudio(false);
  stage.setTile(undefined);
  stage.setLabel(name, !stream.getAudioTracks().length);
  stage.setSpeaking(false);
  stage.setLocal(stream);
  drawControls({ microphone: stream.getAudioTracks().length > 0, camera: stream.getVideoTracks().length > 0 });
  $('leave').focus({ preventScroll: true, focusVisible: false });
}

const departures = { removed: 'was removed', lost: 'lost the connection' };

function bind(session, signal) {
  const on = (type, handler) => session.addEventListener(type, ({ detail }) => handler(detail), { signal });
  const badges = new Badges($('airs'), signal);
  studio = new Studio(session, signal, (allowed) => {
    $('studio-toggle').hidden = !allowed;
    if (!allowed) showStudio(false);
  });
  const drawAir = () => {
    badges.draw(session.room);
    studio.draw(session.room);
    $('studio-toggle').classList.toggle('airing', count(session.room) > 0);
  };
  for (const type of ['room', 'recording', 'broadcast', 'input']) on(type, drawAir);
  const mix = $('mix');
  mix.srcObject = session.stream;
  mix.onplaying = () => drawState(session);
  session.stream.onaddtrack = () => listen(mix);
  listen(mix);

  const drawRoom = () => {
    stage.setTile(session.room.views?.length ? session.tile() : undefined);
    // In a direct call the server receives no audio.
    const speaking = session.direct ? [] : (session.room.speaking ?? []);
    drawPeople($('people'), { ...session.room, speaking }, session.id, session);
    $('direct').hidden = !session.direct;
    $('stage').classList.toggle('direct', session.direct);
    drawOther($('other'), session.direct ? session.room.participants.find((p) => p.id !== session.id) : null);
    const { length } = session.room.participants;
    $('panel-count').textContent = length || '';
    $('badge').textContent = length || '';
    $('alone').hidden = session.state !== 'connected' || session.room.participants.some((p) => p.id !== session.id);
    stage.setSpeaking(session.microphone && speaking.includes(session.id));
    drawStats(session);
  };
  for (const type of ['room', 'joined', 'left', 'updated', 'layout', 'speaker', 'local']) on(type, drawRoom);
  on(
    'joined',
    ({ participant }) => participant.id !== session.id && toast(`${nameOf(participant)} joined`, hueOf(participant.id)),
  );
  on('left', ({ participant, reason }) =>
    toast(`${nameOf(participant)} ${departures[reason] ?? 'left'}`, hueOf(participant.id)),
  );
  on('mixer', ({ state }) => state === 'restarted' && toast('The call was interrupted for a moment'));
  on('local', () => {
    stage.setLocal(session.local);
    stage.setLabel(nameOf(session.self ?? { name: $('name').value }), !session.microphone);
    drawControls(session);
    measure(session.local.getAudioTracks()[0], showLevel);
  });
  on('stats', (stats) => drawStats(session, stats));
  on('state', ({ state, reason }) => {
    drawState(session);
    drawRoom();
    if (state === 'left') showEnded(session, reason);
  });
  measure(session.local.getAudioTracks()[0], showLevel);
  keepAwake(signal);
  drawState(session);
  drawRoom();
  if (session.room.version !== undefined) drawAir();
}

const showLevel = (level) => $('mic').style.setProperty('--level', level < 0.12 ? 0 : level.toFixed(2));

async function listen(mix) {
  try {
    await mix.play();
    $('hear').hidden = true;
  } catch (error) {
    $('hear').hidden = error.name !== 'NotAllowedError';
  }
}

function drawState(session) {
  const lost = session.state === 'reconnecting';
  const pictured = session.state === 'connected' && $('mix').videoWidth > 0;
  if (lost && $('banner').hidden) announce('Reconnecting');
  $('banner').hidden = !lost;
  $('stage').dataset.state = lost ? 'reconnecting' : pictured ? 'live' : 'connecting';
}

function showEnded(session, reason) {
  stay?.abort();
  page.session = null;
  $('mix').srcObject = null;
  stage.setLocal(null);
  measure(null, () => {});
  if (document.fullscreenElement) document.exitFullscreen();
  if (reason === 'page closed') return;
  showLobby();
  if (reason && reason !== 'left') lobbyError(reason);
  else announce('You left the call');
  $('join').focus({ focusVisible: false });
}

const rate = (kbps) => (kbps >= 1000 ? `${(kbps / 1000).toFixed(1)} Mbit/s` : `${kbps} kbit/s`);
const LIMITS = {
  loss: 'packet loss',
  delay: 'slow connection',
  receiver: 'limited by your browser',
};
const quality = (receives) =>
  receives?.video && (receives.limit ? `${receives.tier}: ${LIMITS[receives.limit]}` : receives.tier);
let lastStats = null;

function drawStats(session, stats) {
  if (stats) lastStats = stats;
  const people = session.room.participants.length;
  const crowd = people && `${people} ${people === 1 ? 'person' : 'people'}`;
  const s = session.state === 'connected' ? lastStats : null;
  const seen = s?.streams && [
    `${s.streams} ${s.streams === 1 ? 'stream' : 'streams'}`,
    rate(s.kbpsDown),
    `${s.fps} fps`,
  ];
  $('stats').textContent = [...(seen || []), crowd].filter(Boolean).join(' · ');
  if (!stats) return;
  const facts = [
    ['Receiving', `${s?.streams || 0} video, 1 audio`],
    ['Down', rate(stats.kbpsDown)],
    ['Up', rate(stats.kbpsUp)],
    ['Video', stats.width && `${stats.width}×${stats.height}, ${stats.fps} fps, ${stats.codec}`],
    ['Quality', quality(session.self?.receives)],
    ['Camera sent', stats.sentWidth && `${stats.sentWidth}×${stats.sentHeight}`],
    ['Round trip', stats.rtt !== null && `${stats.rtt} ms`],
    ['Lost · freezes', `${stats.packetsLost} · ${stats.freezes}`],
  ];
  $('received').replaceChildren(
    ...facts.filter(([, value]) => value).flatMap(([name, value]) => [el('dt', {}, name), el('dd', {}, value)]),
  );
}

function drawControls({ microphone, camera, screen = false }) {
  for (const [button, on, name, off, label] of [
    [$('mic'), microphone, 'mic', 'Unmute', 'Mute'],
    [$('cam'), camera, 'cam', 'Camera on', 'Camera off'],
  ]) {
    button.classList.toggle('off', !on);
    setIcon(button, on ? name : `${name}-off`);
    setLabel(button, on ? label : off, button.getAttribute('aria-keyshortcuts'));
    button.hidden = watching;
  }
  $('screen').hidden = watching || !navigator.mediaDevices?.getDisplayMedia;
  $('screen').classList.toggle('on', screen);
  $('screen').setAttribute('aria-pressed', String(screen));
  setIcon($('screen'), screen ? 'screen-off' : 'screen');
  setLabel($('screen'), screen ? 'Stop sharing' : 'Share screen', 'S');
}

async function attempt(button, action) {
  button.disabled = true;
  try {
    await action();
  } catch (error) {
    const what = button === $('mic') ? 'microphone' : 'camera';
    toast(error.name === 'NotAllowedError' ? `Your ${what} is blocked for this page` : `No ${what} found`);
  } finally {
    button.disabled = false;
  }
}

const toggleMic = () => page.session && attempt($('mic'), () => page.session.setMicrophone(!page.session.microphone));
const toggleCam = () => page.session && attempt($('cam'), () => page.session.setCamera(!page.session.camera));

async function toggleScreen() {
  if (!page.session) return;
  $('screen').disabled = true;
  try {
    await page.session.setScreen(!page.session.screen);
  } catch (error) {
    // NotAllowedError: the user closed the browser's dialogue.
    if (error.name !== 'NotAllowedError') toast(error.status ? error.message : 'The screen cannot be shared');
  } finally {
    $('screen').disabled = false;
  }
}

function showPeople(open, remember = true) {
  if (open && $('call').dataset.studio === 'open') showStudio(false);
  $('call').dataset.people = open ? 'open' : 'closed';
  $('people-toggle').setAttribute('aria-expanded', String(open));
  $('people-toggle').classList.toggle('on', open);
  if (remember && !portrait.matches) memory.set('people', open ? 'open' : 'closed');
}

/** Shows the recording panel in place of the list of people. */
function showStudio(open) {
  $('call').dataset.studio = open ? 'open' : 'closed';
  $('studio-toggle').setAttribute('aria-expanded', String(open));
  $('studio-toggle').classList.toggle('on', open);
  if (studio) studio.open = open;
  if (open) $('studio').focus({ preventScroll: true, focusVisible: false });
}

function toggleFull() {
  const call = $('call');
  if (document.fullscreenElement) document.exitFullscreen();
  else if (call.requestFullscreen) call.requestFullscreen().catch(() => toast('Full screen is not allowed here'));
  else $('mix').webkitEnterFullscreen?.();
}

async function share() {
  const link = new URL(`?room=${encodeURIComponent($('room-name').textContent)}`, location.href).href;
  const done = (text) => {
    $('share').querySelector('use').setAttribute('href', '#i-check');
    toast(text);
    setTimeout(() => $('share').querySelector('use').setAttribute('href', '#i-link'), 1800);
  };
  try {
    await navigator.clipboard.writeText(link);
    done('Link copied');
  } catch {
    if (navigator.share) navigator.share({ url: link }).catch(() => {});
    else done(link);
  }
}

$('mic').onclick = toggleMic;
$('cam').onclick = toggleCam;
$('screen').onclick = toggleScreen;
$('fullscreen').onclick = toggleFull;
$('stage').ondblclick = toggleFull;
$('people-toggle').onclick = () =>
  showPeople($('call').dataset.people === 'closed' || $('call').dataset.studio === 'open');
$('panel-close').onclick = () => {
  showPeople(false);
  $('people-toggle').focus();
};
$('studio-toggle').onclick = () => showStudio($('call').dataset.studio !== 'open');
$('studio-close').onclick = () => {
  showStudio(false);
  $('studio-toggle').focus();
};
$('share').onclick = $('invite').onclick = share;
$('hear').onclick = () => listen($('mix'));
$('leave').onclick = () => {
  if (page.session) page.session.leave();
  else {
    stay?.abort();
    showLobby();
  }
};

document.addEventListener('keydown', (event) => {
  if (
    $('call').hidden ||
    $('player').open ||
    event.ctrlKey ||
    event.metaKey ||
    event.altKey ||
    event.repeat ||
    /** @type {Element} */ (event.target).closest('input, select, textarea')
  )
    return;
  if (event.key === 'Escape' && $('call').dataset.studio === 'open') {
    const inside = $('studio').contains(document.activeElement);
    showStudio(false);
    if (inside) $('studio-toggle').focus();
    return;
  }
  if (event.key === 'Escape' && $('call').dataset.people === 'open' && !portrait.matches) {
    const inside = $('panel').contains(document.activeElement);
    showPeople(false);
    if (inside) $('people-toggle').focus();
    return;
  }
  const action = {
    m: $('mic'),
    v: $('cam'),
    s: $('screen'),
    f: $('fullscreen'),
    p: $('people-toggle'),
    r: $('studio-toggle'),
  }[event.key.toLowerCase()];
  if (action && !action.hidden && !action.disabled) action.click();
});

document.addEventListener('fullscreenchange', () => {
  const full = Boolean(document.fullscreenElement);
  $('fullscreen').setAttribute('aria-pressed', String(full));
  setIcon($('fullscreen'), full ? 'full-off' : 'full');
  setLabel($('fullscreen'), full ? 'Leave full screen' : 'Full screen', 'F');
  stir();
});

/** @type {ReturnType<typeof setTimeout> | number} */
let resting = 0;
function stir() {
  $('call').classList.remove('idle');
  clearTimeout(resting);
  if (document.fullscreenElement) resting = setTimeout(() => $('call').classList.add('idle'), 2500);
}
for (const type of ['pointermove', 'pointerdown', 'keydown']) document.addEventListener(type, stir, { passive: true });

/** Prevents a phone from sleeping during a call. */
function keepAwake(signal) {
  let lock = null;
  const hold = async () => {
    if (document.visibilityState === 'visible') lock = await navigator.wakeLock?.request('screen').catch(() => null);
  };
  hold();
  document.addEventListener('visibilitychange', hold, { signal });
  signal.addEventListener('abort', () => lock?.release());
}

// Restored from the back-forward cache.
addEventListener('pageshow', (event) => event.persisted && $('lobby').hidden && showLobby());
showLobby();

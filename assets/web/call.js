// call.js: the screen of the call, drawn from a session of commingle.js: picture, controls, panels and messages.
// Owns its elements while a session is bound. Does not know the lobby, and how to join.

import { Badges } from './badges.js';
import { bindCaptions } from './captions.js';
import { Chat } from './chat.js';
import { Closeup } from './closeup.js';
import { adviceInCall, Meter } from './devices.js';
import { drawSignal, drawStats, linkNow } from './figures.js';
import { closeInvite } from './invite.js';
import { listenToKeys, rove, sureKey } from './keys.js';
import { Layouts } from './layouts.js';
import { closeMenu, menuIsOpen, openMenu } from './menu.js';
import { refusalOf } from './moderation.js';
import { MutedHint } from './muted.js';
import { hueOf, nameOf } from './names.js';
import { bindNotices } from './notices.js';
import { Panels } from './panels.js';
import { drawOther, drawPanel, drawPeople, drawRoster } from './people.js';
import { perform } from './person-menu.js';
import { endFloat } from './pip.js';
import { stillNote, tierOf } from './quality.js';
import { bindReactions, drawReactions, reactionsAreOpen, showReactions } from './reactions.js';
import { closeRoomSettings, drawRoomSettings, muteAll, openRoomSettings } from './room-settings.js';
import { closeSettings, drawSettings, flip, openSettings } from './settings.js';
import { drawInvite, share } from './share.js';
import { hideShortcuts, showShortcuts } from './shortcuts.js';
import { follow } from './speaker.js';
import { Stage, styleOf } from './stage.js';
import { count, Studio } from './studio.js';
import { t } from './texts.js';
import { startToolbar } from './toolbar.js';
import { $, advise, announce, icon, setIcon, setLabel, toast, withdraw } from './ui.js';
import { drawWaiting, isWaiting } from './waiting.js';

const DEPARTURES = { removed: 'call.was_removed', lost: 'call.was_lost' };
const HINT = 8000; // ms that the hint is shown

const stage = new Stage({
  stage: $('picture'),
  mix: $('mix'),
  last: $('last'),
  tile: $('self-tile'),
  self: $('self'),
  label: $('self-label'),
});
const closeup = new Closeup($('closeup'));
let session = null;
let studio = null;
let layouts = null;
let chat = null;
let moderates = false;
let pins = null;
let meter = null;
let measured = null;
let lastStats = null;
let watching = false;
let wantedTier = 'auto';
let leaveEarly = () => {}; // before there is a session

const panels = new Panels((open) => {
  if (studio) studio.open = open === 'studio';
  if (chat) chat.open = open === 'chat';
});

// Begin and end -------------------------------------------------------------------------------------------------------

/**
 * Shows the screen while the session is joined. `stream` has the own tracks; `giveUp()` is called by Leave meanwhile.
 * @param {{ room: string, name: string, stream: MediaStream, watching: boolean, tier?: string, giveUp: () => void }} of
 */
export function showCall({ room, name, stream, watching: watches, tier, giveUp }) {
  watching = watches;
  wantedTier = tier ?? 'auto';
  leaveEarly = giveUp;
  lastStats = null;
  $('call').hidden = false;
  $('call-heading').textContent = t('call.heading', { room });
  $('room-name').dataset.room = room;
  drawTitle({ title: '', locked: false });
  document.title = `${room} · commingle`;
  $('stage').dataset.state = 'connecting';
  $('call').dataset.tier = 'high';
  $('waiting').lastElementChild.textContent = t('call.joining', { room });
  $('stats').textContent = '';
  $('toasts').replaceChildren();
  withdraw();
  for (const id of ['banner', 'alone', 'still-note', 'roster', 'closeup']) $(id).hidden = true;
  $('people').replaceChildren();
  $('studio-toggle').hidden = $('room-menu').hidden = true;
  $('wait').hidden = true;
  $('call').classList.remove('waits');
  panels.reset();
  stage.clear();
  stage.setTile(undefined);
  stage.setLabel(name, !stream.getAudioTracks().length);
  stage.setSpeaking(false);
  stage.setLocal(stream);
  drawControls({ microphone: stream.getAudioTracks().length > 0, camera: stream.getVideoTracks().length > 0 });
  drawFull();
  drawTips();
  drawSignal(session, lastStats);
  // Not a button: the next key must not press it.
  $('stage').focus({ preventScroll: true, focusVisible: false });
}

/** Hides the screen. */
export function hideCall() {
  session = null;
  $('call').hidden = true;
  $('mix').srcObject = null;
  closeup.setStream(null);
  stage.setLocal(null);
  stage.clear();
  measure(null);
  closeInvite();
  closeRoomSettings();
  closeSettings();
  hideShortcuts();
  endFloat($('mix'));
  mutedHint.watch(null);
  closeMenu();
  if (document.fullscreenElement) document.exitFullscreen();
}

/**
 * Draws this session until `signal` is aborted; `watched` requests its view, and `ended(detail)` is called when it has
 * left.
 */
export function bind(of, signal, watched, ended) {
  session = of;
  const on = (type, handler) => of.addEventListener(type, ({ detail }) => handler(detail), { signal });
  const badges = new Badges($('airs'), signal);
  layouts = new Layouts(of, watched, signal);
  pins = {
    get pinned() {
      return watched.pinned;
    },
    async toggle(participant) {
      await watched.pin(watched.pinned === participant ? null : participant);
      drawRoom();
    },
  };
  chat = new Chat(of, signal);
  moderates = false;
  studio = new Studio(of, signal, (allowed) => {
    moderates = allowed;
    $('studio-toggle').hidden = $('room-menu').hidden = !allowed;
    layouts.moderates = chat.moderates = allowed;
    if (!allowed && panels.open === 'studio') panels.show('');
    drawRoom();
  });
  bindReactions(of, signal);
  bindCaptions(of, signal);
  bindNotices(of, signal, { moderates: () => moderates, turn, showPeople: () => panels.show('people') });
  const drawAir = () => {
    badges.draw(of.room);
    studio.draw(of.room);
    $('studio-toggle').classList.toggle('airing', count(of.room) > 0);
  };
  for (const type of ['room', 'recording', 'broadcast', 'input']) on(type, drawAir);
  const mix = $('mix');
  mix.srcObject = of.stream;
  mix.onplaying = drawState;
  of.stream.onaddtrack = play;
  play();
  for (const id of ['mix', 'player-video']) follow($(id));
  closeup.setStream(of.stream);

  for (const type of ['room', 'joined', 'left', 'updated', 'layout', 'speaker', 'local', 'hand', 'lobby'])
    on(type, drawRoom);
  on('joined', ({ participant }) => {
    if (participant.id !== of.id) toast(t('call.joined', { name: nameOf(participant) }), hueOf(participant.id));
  });
  on('left', ({ participant, reason }) =>
    participant.state !== 'lobby' &&
    toast(t(DEPARTURES[reason] ?? 'call.left', { name: nameOf(participant) }), hueOf(participant.id)),
  );
  on('mixer', ({ state }) => state === 'restarted' && toast(t('call.interrupted')));
  on('local', () => {
    stage.setLocal(of.local);
    stage.setLabel(nameOf(of.self ?? { name: $('name').value }), !of.microphone);
    drawControls(of);
    measure(of.local.getAudioTracks()[0]);
    drawOwn();
    drawSettings();
    if (of.microphone) withdraw('audio');
    if (of.camera) withdraw('video');
  });
  on('unplugged', ({ kind }) => adviseUnplugged(kind));
  on('stats', (stats) => {
    lastStats = stats;
    drawStats(of, lastStats, tierNow(), stats);
    drawSignal(of, lastStats);
  });
  on('state', (detail) => {
    drawRoom();
    if (of.state === 'left') ended(detail);
  });
  measure(of.local.getAudioTracks()[0]);
  drawOwn();
  keepAwake(signal);
  drawRoom();
  if (of.room.version !== undefined) drawAir();
}

// Picture -------------------------------------------------------------------------------------------------------------

async function play() {
  const mix = $('mix');
  try {
    await mix.play();
    $('hear').hidden = true;
  } catch (error) {
    $('hear').hidden = error.name !== 'NotAllowedError';
  }
}

const tierNow = () => (session?.direct ? 'high' : tierOf(session?.self, wantedTier));

function drawState() {
  if (!session) return;
  const lost = session.state === 'reconnecting';
  const pictured = session.state === 'connected' && ($('mix').videoWidth > 0 || tierNow() === 'audio');
  const text = t(session.unreachable ? 'call.unreachable' : 'call.reconnecting');
  if (lost && ($('banner').hidden || $('banner-text').textContent !== text)) {
    $('banner-text').textContent = text;
    announce(text);
  }
  $('banner').hidden = !lost;
  if (lost) stage.freeze();
  else if (tierNow() === 'audio') stage.clear();
  else if (pictured) stage.thaw();
  const frozen = !$('last').hidden;
  $('stage').dataset.state = lost ? 'reconnecting' : pictured || frozen ? 'live' : 'connecting';
  const joining = t('call.joining', { room: $('room-name').dataset.room });
  $('waiting').lastElementChild.textContent = session.unreachable ? t('call.unreachable') : joining;
  drawSignal(session, lastStats);
}

function drawRoom() {
  if (!session) return;
  const { room, id, direct } = session;
  const tier = tierNow();
  const view = session.view();
  drawTheme(room);
  stage.setTile(room.views?.length ? session.tile() : undefined);
  // In a direct call the server receives no audio.
  const speaking = direct ? [] : (room.speaking ?? []);
  const about = { pins: direct ? null : pins, moderates, write };
  drawPeople($('people'), { ...room, speaking }, id, session, about);
  drawPanel(session, about);
  drawWaiting(session, $('room-name').dataset.room);
  drawReactions();
  drawRoomSettings();
  chat.draw();
  drawTitle(room);
  $('direct').hidden = !direct;
  $('stage').classList.toggle('direct', direct);
  drawOther($('other'), direct ? room.participants.find((p) => p.id !== id) : null);
  const { length } = room.participants;
  $('panel-count').textContent = length || '';
  $('badge').textContent = length || '';
  $('people-toggle').setAttribute('aria-label', length ? t('call.people', { count: length }) : t('people.title'));
  $('alone').hidden = session.state !== 'connected' || room.participants.some((p) => p.id !== id);
  stage.setSpeaking(session.microphone && speaking.includes(id));
  $('layouts-toggle').hidden = direct || isWaiting(session);
  if (direct && panels.open === 'layouts') panels.show('');
  layouts.draw();
  drawStill(tier, speaking);
  const canvas = direct ? null : view?.canvas;
  const upright = Boolean(canvas) && canvas.height > canvas.width;
  closeup.draw(tier === 'audio' || direct || upright ? null : view, room, id);
  $('call').dataset.canvas = upright ? 'upright' : 'wide';
  $('picture').style.setProperty('--ratio', canvas ? String(canvas.width / canvas.height) : '');
  drawInvite(session);
  drawState();
  drawStats(session, lastStats, tier);
}

/** The title of the room in place of its name. */
function drawTitle({ title, locked }) {
  const text = title || $('room-name').dataset.room;
  const [name, sign] = $('room-name').childNodes;
  if (name?.textContent !== text || Boolean(locked) !== Boolean(sign))
    $('room-name').replaceChildren(text, ...(locked ? [icon('lock')] : []));
}

/** The colours and sizes of the mixer's tiles, for what the page draws over them. */
function drawTheme(room) {
  stage.setStyle(styleOf(room));
  const { label_background: chip, label_color: label, speaker_frame: speaking } = room.theme ?? {};
  for (const [name, value] of Object.entries({ chip, label, speaking }))
    $('picture').style.setProperty(`--${name}`, value ?? '');
}

/** Names and speaking indicators on tiers without a moving picture, and the reason. */
function drawStill(tier, speaking) {
  const note = session.state === 'left' ? null : stillNote(tier, session.self?.receives, session.self);
  $('call').dataset.tier = tier;
  $('still-note').hidden = $('roster').hidden = !note;
  if (!note) return;
  const [title, text] = $('still-note').querySelectorAll('b, p > span');
  if (title.textContent !== note.title) title.textContent = note.title;
  if (text.textContent !== note.text) text.textContent = note.text;
  drawRoster($('roster'), { ...session.room, speaking }, session.id, session);
}

// Controls ------------------------------------------------------------------------------------------------------------

const showLevel = (level) => $('mic').style.setProperty('--level', level < 0.12 ? '0' : level.toFixed(2));

function measure(track) {
  if (track === measured) return;
  measured = track;
  meter?.stop();
  meter = track ? new Meter(track, showLevel) : null;
  if (!track) showLevel(0);
}

const mutedHint = new MutedHint(() => {
  advise('muted', t('muted.hint'), { calm: true, button: t('call.unmute'), action: () => turn('audio', true) });
  setTimeout(() => withdraw('muted'), HINT);
});

/** @param {{ microphone: boolean, camera: boolean, screen?: boolean }} on */
function drawControls({ microphone, camera, screen = false }) {
  /** @type {[HTMLElement, boolean, string, string, string][]} */
  const switches = [
    [$('mic'), microphone, 'mic', 'call.unmute', 'call.mute'],
    [$('cam'), camera, 'cam', 'call.camera_on', 'call.camera_off'],
  ];
  for (const [button, on, name, off, label] of switches) {
    button.classList.toggle('off', !on);
    setIcon(button, on ? name : `${name}-off`);
    setLabel(button, t(on ? label : off), keyOf(button));
    button.hidden = watching;
  }
  if (!microphone) $('mic').dataset.tip = t('call.hold_space', { key: keyOf($('mic')) });
  $('screen').hidden = watching || !navigator.mediaDevices?.getDisplayMedia;
  $('screen').classList.toggle('on', screen);
  $('screen').setAttribute('aria-pressed', String(screen));
  setIcon($('screen'), screen ? 'screen-off' : 'screen');
  setLabel($('screen'), t(screen ? 'call.stop_sharing' : 'call.share_screen'), keyOf($('screen')));
}

/** The key that presses a button; undefined without one. */
const keyOf = (button) => button.getAttribute('aria-keyshortcuts')?.split(' ')[0];

/** The labels of the buttons that open panels, and of Leave. */
function drawTips() {
  /** @type {[string, string][]} */
  const labels = [
    ['layouts-toggle', 'layouts.title'],
    ['people-toggle', 'people.title'],
    ['chat-toggle', 'chat.title'],
    ['react', 'reactions.title'],
    ['more', 'toolbar.more'],
    ['studio-toggle', 'studio.title'],
    ['settings-toggle', 'settings.title'],
    ['leave', 'call.leave'],
  ];
  for (const [id, key] of labels) setLabel($(id), t(key), keyOf($(id)));
}

/** What depends on the own tracks: the button that turns a phone's camera, and the hint for those who speak muted. */
function drawOwn() {
  const [camera] = session.local.getVideoTracks();
  $('flip').hidden = !camera?.getSettings().facingMode || !matchMedia('(pointer: coarse)').matches;
  mutedHint.watch(maySpeak() ? session.local.getAudioTracks()[0] : null);
}

/** Draws everything again in another language. */
function drawLanguage() {
  drawFull();
  drawTips();
  if (!session) return;
  drawControls(session);
  layouts.name();
  drawRoom();
}

/** Runs one action of a button at a time. The button is not disabled, because it would lose the focus. */
async function alone(button, action) {
  if (button.getAttribute('aria-busy') === 'true') return;
  button.setAttribute('aria-busy', 'true');
  try {
    await action();
  } finally {
    button.removeAttribute('aria-busy');
  }
}

/** Says why a device may not be turned on, or a screen not be shared; false if it may. */
function refuse(kind) {
  const key = refusalOf(kind, { self: session.self, room: session.room, moderates });
  if (key) toast(t(key));
  return key !== null;
}

const turn = (kind, on) =>
  alone($(kind === 'audio' ? 'mic' : 'cam'), async () => {
    if (!session || (on && refuse(kind))) return;
    try {
      await (kind === 'audio' ? session.setMicrophone(on) : session.setCamera(on));
      withdraw(kind);
    } catch (error) {
      advise(kind, adviceInCall(kind, error.name), { button: t('call.try_again'), action: () => turn(kind, true) });
    }
  });

function adviseUnplugged(kind) {
  advise(kind, t(`call.unplugged_${kind}`), { button: t(`call.another_${kind}`), action: () => turn(kind, true) });
}

/** Push-to-talk: the microphone is on while Space is held. */
let held = false;
async function talk(on) {
  held = on;
  const sets = session;
  if (on) toast(t('call.talking'));
  else $('toasts').replaceChildren();
  try {
    await sets?.setMicrophone(on);
    if (on && !held) await sets?.setMicrophone(false); // released while the microphone was being opened
  } catch (error) {
    if (on) advise('audio', adviceInCall('audio', error.name));
  }
}

const toggleScreen = () =>
  alone($('screen'), async () => {
    if (!session || (!session.screen && refuse('screen'))) return;
    try {
      await session.setScreen(!session.screen);
    } catch (error) {
      // NotAllowedError: the user closed the browser's dialogue.
      if (error.name !== 'NotAllowedError') toast(error.status ? error.message : t('call.screen_failed'));
    }
  });

/** Opens the chat to write to one person, or to everyone. */
function write(id) {
  panels.show('chat');
  chat?.writeTo(id);
}

/** The menu of the whole room, for moderators. */
function openRoomMenu() {
  const of = session;
  const set = (body) => perform(of, { path: '/v1/rooms/{room}', method: 'PATCH', body });
  const { lobby = false, locked = false } = of.room;
  openMenu($('room-menu'), t('room.menu'), [
    { label: t('room.mute_all'), icon: 'mic-off', act: () => muteAll(of) },
    null,
    { label: t('room.lobby'), icon: 'people', checked: lobby, act: () => set({ lobby: !lobby }) },
    { label: t('room.locked'), icon: 'lock', checked: locked, act: () => set({ locked: !locked }) },
    null,
    { label: t('room.settings'), icon: 'sliders', act: () => openRoomSettings(of) },
  ]);
}

function toggleFull() {
  const call = $('call');
  if (document.fullscreenElement) document.exitFullscreen();
  else if (call.requestFullscreen) call.requestFullscreen().catch(() => toast(t('call.full_refused')));
  else $('mix').webkitEnterFullscreen?.();
}

// Events of the page --------------------------------------------------------------------------------------------------

$('mic').onclick = () => session && turn('audio', !session.microphone);
$('cam').onclick = () => session && turn('video', !session.camera);
$('screen').onclick = toggleScreen;
$('fullscreen').onclick = toggleFull;
$('picture').ondblclick = toggleFull;
$('room-menu').onclick = () => session && openRoomMenu();
$('settings-toggle').onclick = () => session && openSettings(session, drawLanguage);
$('flip').onclick = () =>
  alone($('flip'), () => flip(session).catch(() => advise('video', t('settings.device_failed'))));
$('share').onclick = $('invite').onclick = () => share(session, watching);
$('signal').onclick = () => toast(linkNow(session, lastStats).reason);
$('hear').onclick = play;
sureKey($('leave'), () => (session ? session.leave() : leaveEarly()));
rove($('controls'));
startToolbar();

/** Closes what is open by Escape. */
function escape() {
  if (reactionsAreOpen()) showReactions(false);
  else panels.escape();
}

const maySpeak = () => Boolean(session) && !watching && !session.microphone && !refuse('audio');

listenToKeys({
  inCall: () => !$('call').hidden && !document.querySelector('dialog[open]') && !menuIsOpen(),
  escape,
  maySpeak,
  talk,
  list: showShortcuts,
});

function drawFull() {
  const full = Boolean(document.fullscreenElement);
  $('fullscreen').setAttribute('aria-pressed', String(full));
  setIcon($('fullscreen'), full ? 'full-off' : 'full');
  setLabel($('fullscreen'), t(full ? 'call.leave_full' : 'call.full'), keyOf($('fullscreen')));
}

document.addEventListener('fullscreenchange', () => {
  drawFull();
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

// settings.js: the dialogue of camera, microphone, loudspeaker and language during a call.
// Owns the elements of the dialogue. Input: a session of commingle.js. Does not know the rest of the page.

import { kinds, labelsOf, Meter, otherSide } from './devices.js';
import { offerLanguages } from './language.js';
import { canFloat, floats, toggleFloat } from './pip.js';
import { showShortcuts } from './shortcuts.js';
import { canChoose, chime, choose, chosen, follow } from './speaker.js';
import { t } from './texts.js';
import { $, el, toast } from './ui.js';

const phone = matchMedia('(pointer: coarse)');

let session = null;
let meter = null;
let measured = null;
let redraw = () => {};

const trackOf = (kind) => session?.local.getTracks().find((track) => track.kind === kind) ?? null;

/** Opens the dialogue for a session; `changed()` is called when the language has changed. */
export async function openSettings(of, changed) {
  session = of;
  redraw = changed;
  complain('');
  draw();
  if (!$('settings').open) $('settings').showModal();
  await list();
}

/** Closes the dialogue, also when the call has ended. */
export function closeSettings() {
  if ($('settings').open) $('settings').close();
}

/** Draws the state of the devices again, if the dialogue is open. */
export function drawSettings() {
  if (session && $('settings').open) draw();
}

function complain(text) {
  $('settings-error').textContent = text;
  $('settings-error').hidden = !text;
}

function fill(select, rows, current) {
  const key = JSON.stringify([rows, current]);
  if (select.dataset.key === key) return;
  select.dataset.key = key;
  select.replaceChildren(...rows.map(([value, label]) => el('option', { value }, label)));
  select.value = current;
  select.disabled = rows.length === 0 || (rows.length === 1 && rows[0][0] === '');
}

async function list() {
  const found = await kinds();
  if (!session) return;
  for (const [kind, id, name] of [
    ['audio', 'settings-mic', 'lobby.microphone'],
    ['video', 'settings-cam', 'lobby.camera'],
  ]) {
    const rows = labelsOf(found[`${kind}input`], t(name));
    const current = trackOf(kind)?.getSettings().deviceId ?? session.deviceOf(kind) ?? rows[0]?.[0] ?? '';
    fill($(id), rows.length ? rows : [['', t('lobby.device_none')]], current);
  }
  const speakers = labelsOf(found.audiooutput, t('settings.speaker')).filter(([id]) => id !== 'default');
  const known = speakers.some(([id]) => id === chosen());
  $('settings-speaker-row').hidden = !canChoose();
  fill($('settings-speaker'), [['', t('settings.default_speaker')], ...speakers], known ? chosen() : '');
  $('settings-flip').hidden = !phone.matches || found.videoinput.length < 2 || !session.camera;
}

function draw() {
  const camera = trackOf('video');
  const sends = session.self?.role !== 'viewer';
  for (const id of ['settings-mic-row', 'settings-cam-row']) $(id).hidden = !sends;
  $('settings-blur-row').hidden = !blurs(camera);
  $('settings-blur').checked = /** @type {any} */ (camera?.getSettings())?.backgroundBlur === true;
  $('settings-pip').hidden = !canFloat($('mix'));
  $('settings-pip').querySelector('span').textContent = t(floats($('mix')) ? 'settings.leave_pip' : 'settings.pip');
  $('settings-keys').hidden = phone.matches;
  const preview = $('settings-preview');
  preview.hidden = !camera || !sends;
  if (/** @type {MediaStream | null} */ (preview.srcObject)?.getVideoTracks()[0] !== camera)
    preview.srcObject = camera && new MediaStream([camera]);
  preview.classList.toggle('rear', camera?.getSettings().facingMode === 'environment');
  measure(session.microphone ? trackOf('audio') : null);
}

/** Whether the camera can blur the background itself. */
const blurs = (camera) => /** @type {any} */ (camera?.getCapabilities?.())?.backgroundBlur?.includes(true) ?? false;

function measure(track) {
  if (track === measured) return;
  measured = track;
  meter?.stop();
  const show = (level) => {
    const bars = $('settings-meter').children;
    for (let i = 0; i < bars.length; i += 1) bars[i].classList.toggle('lit', level * bars.length > i + 0.25);
  };
  meter = track ? new Meter(track, show) : null;
  if (!track) show(0);
}

/** Performs a change of a device; the user reads when it failed. */
async function change(action) {
  complain('');
  try {
    await action();
  } catch {
    complain(t('settings.device_failed'));
  }
  if (!session) return;
  draw();
  await list();
}

/** Uses the camera on the other side of a phone. Also called by the button in the picture. */
export const flip = (of) =>
  of.useDevice('video', { facingMode: otherSide(of.local.getVideoTracks()[0]) }, { first: true });

$('settings-mic').onchange = () =>
  change(() => session.useDevice('audio', { deviceId: { exact: $('settings-mic').value } }));
$('settings-cam').onchange = () =>
  change(() => session.useDevice('video', { deviceId: { exact: $('settings-cam').value } }, { first: phone.matches }));
$('settings-speaker').onchange = () => change(() => choose($('settings-speaker').value));
$('settings-flip').onclick = () => change(() => flip(session));
$('settings-blur').onchange = () =>
  change(() => trackOf('video').applyConstraints({ backgroundBlur: $('settings-blur').checked }));
$('settings-test').onclick = async () => {
  const player = new Audio(chime());
  follow(player);
  await player.play().catch(() => {});
};
$('settings-pip').onclick = async () => {
  await toggleFloat($('mix')).catch(() => toast(t('settings.pip_failed')));
  closeSettings();
};
$('settings-keys').onclick = () => {
  closeSettings();
  showShortcuts();
};
$('settings-close').onclick = closeSettings;
// A click outside the dialogue.
$('settings').addEventListener('click', (event) => event.target === $('settings') && closeSettings());
$('settings').addEventListener('close', () => {
  measure(null);
  $('settings-preview').srcObject = null;
  session = null;
});
offerLanguages($('settings-language'), () => {
  redraw();
  if (session) {
    draw();
    list();
  }
});
navigator.mediaDevices?.addEventListener?.('devicechange', () => session && list());

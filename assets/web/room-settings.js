// room-settings.js: the dialogue in which a moderator changes the room: lobby, lock, permissions, title, times, end.
// Owns the elements of the dialogue. Each change is sent at once. Input: a session of commingle.js.

import { ask } from './ask.js';
import { changeOf, localValue } from './moderation.js';
import { perform } from './person-menu.js';
import { t } from './texts.js';
import { $ } from './ui.js';

const SWITCHES = ['lobby', 'locked'];
const PERMISSIONS = ['speak', 'unmute', 'share', 'chat'];
const TIMES = ['opens_at', 'ends_at'];

let session = null;

const form = () => $('room-form');
const input = (name) => /** @type {HTMLInputElement} */ (form().elements.namedItem(name));

/** Draws the settings of the room, except a field that is being edited. */
export function drawRoomSettings() {
  if (!session || !$('room-dialog').open) return;
  const { room } = session;
  for (const name of SWITCHES) input(name).checked = room[name] === true;
  for (const name of PERMISSIONS) {
    const value = room.who_may?.[name] ?? 'everyone';
    for (const radio of form().querySelectorAll(`[name="${name}"]`))
      /** @type {HTMLInputElement} */ (radio).checked = /** @type {HTMLInputElement} */ (radio).value === value;
  }
  const values = { title: room.title ?? '', max_participants: String(room.max_participants ?? '') };
  for (const name of TIMES) values[name] = localValue(room[name]);
  for (const [name, value] of Object.entries(values))
    if (document.activeElement !== input(name)) input(name).value = value;
}

/** Opens the dialogue for the room of a session. */
export function openRoomSettings(of) {
  session = of;
  $('room-error').hidden = true;
  $('room-dialog').showModal();
  drawRoomSettings();
}

/** Closes the dialogue, also when the call has ended. */
export function closeRoomSettings() {
  session = null;
  if ($('room-dialog').open) $('room-dialog').close();
}

/** Mutes everybody else, after a question. */
export async function muteAll(of) {
  const question = { title: t('room.mute_all'), text: t('room.mute_all_text'), confirm: t('room.mute_all_confirm') };
  if (await ask(question)) await perform(of, { path: '/v1/rooms/{room}/participants/mute', method: 'POST' });
}

async function end() {
  const of = session;
  closeRoomSettings();
  const question = { title: t('room.end_title'), text: t('room.end_text'), confirm: t('room.end'), danger: true };
  if (await ask(question)) await perform(of, { path: '/v1/rooms/{room}', method: 'DELETE' });
}

async function change(field) {
  const error = $('room-error');
  error.hidden = true;
  try {
    await session?.call('/v1/rooms/{room}', { method: 'PATCH', body: changeOf(field) });
  } catch (refused) {
    error.textContent = refused.message;
    error.hidden = false;
    field.blur();
    drawRoomSettings();
  }
}

form().addEventListener('change', ({ target }) => change(/** @type {HTMLInputElement} */ (target)));
form().addEventListener('submit', (event) => event.preventDefault());
$('room-close').onclick = closeRoomSettings;
$('room-end').onclick = end;
// A click outside the dialogue.
$('room-dialog').addEventListener('click', (event) => event.target === $('room-dialog') && closeRoomSettings());

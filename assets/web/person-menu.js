// person-menu.js: the menu of a person in the list of people, and the questions that its actions need.
// Input: a session of commingle.js; moderation.js says what is possible.

import { ask } from './ask.js';
import { openMenu } from './menu.js';
import { actionsFor, KEEP_OUT, removal, requestFor } from './moderation.js';
import { nameOf } from './names.js';
import { explain } from './problems.js';
import { t } from './texts.js';
import { toast } from './ui.js';

const ICONS = {
  pin: 'pin',
  unpin: 'pin',
  write: 'chat',
  raise: 'hand',
  lower: 'hand',
  rename: 'pen',
  mute: 'mic-off',
  ask: 'mic',
  release: 'mic',
  stop_camera: 'cam-off',
  release_camera: 'cam',
  allow: 'mic',
  disallow: 'mic-off',
  pin_all: 'pin',
  unpin_all: 'pin',
  spotlight: 'star',
  unspotlight: 'star',
  make_moderator: 'shield',
  make_participant: 'shield',
  remove: 'leave-room',
};

/** Actions that have no visible effect for the one who asks, and say so. */
const CONFIRMED = new Set([
  'ask',
  'release',
  'release_camera',
  'make_moderator',
  'make_participant',
  'allow',
  'disallow',
]);

/** Sends a request of moderation.js; says why if it is refused. Resolves with whether it succeeded. */
export async function perform(session, { path, method, body = undefined }) {
  try {
    await session.call(path, { method, body });
    return true;
  } catch (error) {
    toast(explain(error, { hasToken: true }).text);
    return false;
  }
}

async function remove(session, person) {
  const name = nameOf(person);
  const options = KEEP_OUT.map((seconds) => [String(seconds), t(`remove.after_${seconds}`)]);
  const answer = await ask({
    title: t('remove.title', { name }),
    confirm: t('remove.confirm'),
    danger: true,
    fields: [{ name: 'seconds', label: t('remove.may_return'), value: '0', options: /** @type {any} */ (options) }],
  });
  if (answer) await perform(session, removal(person.id, Number(answer.seconds)));
}

async function rename(session, person) {
  const field = { name: 'name', label: t('rename.label'), value: person.name || nameOf(person), maxlength: 64 };
  const answer = await ask({ title: t('rename.title'), confirm: t('rename.confirm'), fields: [field] });
  const name = answer?.name.trim();
  if (!name) return;
  await perform(session, { path: `/v1/rooms/{room}/participants/${person.id}`, method: 'PATCH', body: { name } });
}

async function act(action, session, person, { pins, write }) {
  if (action === 'pin' || action === 'unpin') return pins.toggle(person.id);
  if (action === 'write') return write(person.id);
  if (action === 'raise') return session.raiseHand(true);
  if (action === 'lower') return session.raiseHand(false, person.id);
  if (action === 'rename') return rename(session, person);
  if (action === 'remove') return remove(session, person);
  const done = await perform(session, requestFor(action, person.id, session.room));
  if (done && CONFIRMED.has(action)) toast(t(`person.done_${action}`, { name: nameOf(person) }));
}

/**
 * Opens the menu of a person at a button.
 * @param {HTMLElement} button
 * @param {any} session
 * @param {string} id
 * @param {{ moderates: boolean, pins: any, write: (id: string) => void }} about
 */
export function openPersonMenu(button, session, id, about) {
  const { room, self } = session;
  const person = room.participants.find((one) => one.id === id);
  if (!person) return;
  const pinned = about.pins?.pinned ?? null;
  const groups = actionsFor({ room, me: self, person, moderates: about.moderates, pinned });
  const entries = groups.flatMap((group, index) => [
    ...(index > 0 ? [null] : []),
    ...group
      .filter((action) => about.pins || !['pin', 'unpin'].includes(action))
      .map((action) => ({
        label: t(`person.${action}`),
        icon: ICONS[action],
        danger: action === 'remove',
        act: () => act(action, session, person, about),
      })),
  ]);
  openMenu(button, nameOf(person), entries);
}

// people.js: the participants with speaking and muted state, drawn from the room document: the list, the roster in
// place of a picture, and the other participant of a direct call. Elements are reused.

import { hueOf, initialsOf, labelOf, nameOf } from './names.js';
import { hasPoorLink } from './quality.js';
import { listed, t } from './texts.js';
import { el, icon } from './ui.js';

const rows = new Map();

function row(id) {
  const avatar = el('span', { class: 'avatar', 'aria-hidden': 'true' });
  avatar.style.setProperty('--hue', hueOf(id));
  const name = el('b');
  const note = el('small');
  const bars = el('span', { class: 'bars', 'aria-hidden': 'true' }, el('i'), el('i'), el('i'));
  const signs = el('span', { class: 'signs' }, bars);
  const pin = el('button', { type: 'button', class: 'quiet pin' }, icon('pin'));
  const who = el('span', { class: 'who' }, name, note);
  const node = el('li', { class: 'person', 'data-id': id }, avatar, who, pin, signs);
  return { node, avatar, name, note, pin, signs, bars, key: '' };
}

const quiet = (person) => person.audio_muted === true || !sends(person, 'microphone');

// Without the field `sends`, all kinds count as sent.
const sends = (person, kind) => !Array.isArray(person.sends) || person.sends.some((source) => source.kind === kind);

/** Draws the name and, without a camera, the avatar over the video of a direct call, which the mixer does not draw. */
export function drawOther(node, person) {
  node.hidden = !person;
  if (!person) return;
  const name = nameOf(person);
  const muted = quiet(person);
  const dark = person.video_muted === true || !sends(person, 'camera');
  const [avatar, label] = node.children;
  node.classList.toggle('dark', dark);
  avatar.style.setProperty('--hue', hueOf(person.id));
  avatar.textContent = initialsOf(person);
  label.replaceChildren(...(muted ? [icon('mic-off')] : []), el('span', {}, name));
}

/**
 * Draws all participants, including viewers. `pins` has the id of the pinned participant and `toggle(id)`; null if
 * nobody can be pinned.
 */
export function drawPeople(list, room, selfId, local, pins) {
  const speaking = new Set(room.speaking ?? []);
  const people = [...room.participants].sort((a, b) => Number(b.id === selfId) - Number(a.id === selfId));
  const seen = new Set();
  people.forEach((person, index) => {
    const self = person.id === selfId;
    const viewer = person.role === 'viewer';
    const muted = self ? !local.microphone : quiet(person);
    const dark = self
      ? !local.camera
      : person.video_muted === true || !(sends(person, 'camera') || sends(person, 'screen'));
    const speaks = speaking.has(person.id) && !muted;
    const shares = self ? local.screen : person.sends?.some((source) => source.kind === 'screen');
    const note = listed([
      self ? t(viewer ? 'people.you_watch' : 'people.you') : viewer && t('people.watches'),
      !self && person.role === 'moderator' && t('people.moderator'),
      shares && labelOf(person, 'screen'),
    ]);
    const poor = hasPoorLink(person);
    const name = nameOf(person);
    let entry = rows.get(person.id);
    if (!entry) rows.set(person.id, (entry = row(person.id)));
    seen.add(person.id);
    const pinned = pins?.pinned === person.id;
    const key = JSON.stringify([name, note, viewer, muted, dark, speaks, poor, pinned]);
    if (entry.key !== key) {
      entry.key = key;
      entry.name.textContent = name;
      entry.avatar.textContent = initialsOf(person);
      entry.note.textContent = note;
      entry.note.hidden = !note;
      entry.node.classList.toggle('speaking', speaks);
      entry.pin.setAttribute('aria-pressed', String(pinned));
      entry.pin.setAttribute('aria-label', t('people.pin_name', { name }));
      entry.pin.title = t(pinned ? 'people.pinned' : 'people.pin');
      const signs = viewer
        ? [icon('eye')]
        : [...(dark ? [icon('cam-off')] : []), ...(muted ? [icon('mic-off', 'muted')] : [])];
      entry.signs.replaceChildren(entry.bars, ...(poor ? [icon('bars', 'poor')] : []), ...signs);
      const sends = [!viewer && muted && t('people.muted'), !viewer && dark && t('people.dark')];
      const states = [note, speaks && t('people.speaking'), ...sends, poor && t('people.poor')];
      entry.node.setAttribute('aria-label', listed([name, ...states]));
    }
    entry.pin.hidden = !pins || self || viewer;
    entry.pin.onclick = () => pins?.toggle(person.id);
    if (list.children[index] !== entry.node) list.insertBefore(entry.node, list.children[index] ?? null);
  });
  for (const [id, entry] of rows) {
    if (seen.has(id)) continue;
    entry.node.remove();
    rows.delete(id);
  }
}

/** Draws names and speaking indicators in place of a picture: of those who can be heard, or share a screen. */
export function drawRoster(list, room, selfId, local) {
  const speaking = new Set(room.speaking ?? []);
  const people = room.participants.filter((person) => person.role !== 'viewer');
  const key = JSON.stringify([people, [...speaking], selfId, local.microphone, local.screen]);
  if (list.dataset.key === key) return;
  list.dataset.key = key;
  list.replaceChildren(
    ...people.map((person) => {
      const self = person.id === selfId;
      const muted = self ? !local.microphone : quiet(person);
      const speaks = speaking.has(person.id) && !muted;
      const shares = self ? local.screen : person.sends?.some((source) => source.kind === 'screen');
      const name = nameOf(person);
      const avatar = el('span', { class: 'avatar', 'aria-hidden': 'true' }, initialsOf(person));
      avatar.style.setProperty('--hue', hueOf(person.id));
      const label = el('span', { class: 'name' }, ...(muted ? [icon('mic-off', 'muted')] : []));
      label.append(el('span', {}, self ? t('people.name_you', { name }) : name));
      const states = [self && t('people.you'), speaks && t('people.speaking'), muted && t('people.muted')];
      const said = listed([name, ...states, shares && t('people.shares')]);
      const card = { class: speaks ? 'speaking' : '', 'aria-label': said };
      const note = shares ? [el('small', {}, icon('screen'), el('span', {}, labelOf(person, 'screen')))] : [];
      return el('li', card, avatar, label, ...note);
    }),
  );
}

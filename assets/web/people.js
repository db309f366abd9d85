// people.js: the participants with speaking and muted state, drawn from the room document: the list, the roster in
// place of a picture, and the other participant of a direct call. Elements are reused.

import { isSilent, requestFor } from './moderation.js';
import { hueOf, initialsOf, labelOf, nameOf } from './names.js';
import { openPersonMenu, perform } from './person-menu.js';
import { linkOf } from './quality.js';
import { listed, t } from './texts.js';
import { $, el, icon } from './ui.js';

const SEARCHABLE = 12; // people; with more there is a field to search

const rows = new Map();

function row(id) {
  const avatar = el('span', { class: 'avatar', 'aria-hidden': 'true' });
  avatar.style.setProperty('--hue', hueOf(id));
  const name = el('b');
  const note = el('small');
  const bars = el('span', { class: 'bars', 'aria-hidden': 'true' }, el('i'), el('i'), el('i'));
  const signs = el('span', { class: 'signs' }, bars);
  const pin = el('button', { type: 'button', class: 'quiet pin' }, icon('pin'));
  const menu = el('button', { type: 'button', class: 'quiet do', 'aria-haspopup': 'menu', 'aria-expanded': 'false' });
  menu.append(icon('more'));
  const who = el('span', { class: 'who' }, name, note);
  const node = el('li', { class: 'person', 'data-id': id }, avatar, who, pin, signs, menu);
  return { node, avatar, name, note, pin, menu, signs, bars, key: '' };
}

// Without the field `sends`, all kinds count as sent.
const sends = (person, kind) => !Array.isArray(person.sends) || person.sends.some((source) => source.kind === kind);

/** Draws the name and, without a camera, the avatar over the video of a direct call, which the mixer does not draw. */
export function drawOther(node, person) {
  node.hidden = !person;
  if (!person) return;
  const name = nameOf(person);
  const muted = isSilent(person);
  const dark = person.video_muted === true || !sends(person, 'camera');
  const [avatar, label] = node.children;
  node.classList.toggle('dark', dark);
  avatar.style.setProperty('--hue', hueOf(person.id));
  avatar.textContent = initialsOf(person);
  label.replaceChildren(...(muted ? [icon('mic-off')] : []), el('span', {}, name));
}

/**
 * Draws all participants, including viewers. `pins` has the id of the pinned participant and `toggle(id)`; null if
 * nobody can be pinned. `moderates` says whether the user is a moderator, `write(id)` opens the chat.
 * @param {HTMLElement} list
 * @param {any} room
 * @param {string} selfId
 * @param {any} local the session
 * @param {{ pins: any, moderates: boolean, write: (id: string) => void }} about
 */
export function drawPeople(list, room, selfId, local, about) {
  const { pins } = about;
  const speaking = new Set(room.speaking ?? []);
  const people = [...room.participants].sort((a, b) => Number(b.id === selfId) - Number(a.id === selfId));
  const seen = new Set();
  people.forEach((person, index) => {
    const self = person.id === selfId;
    const viewer = person.role === 'viewer';
    const muted = self ? !local.microphone : isSilent(person);
    const dark = self
      ? !local.camera
      : person.video_muted === true ||
        Boolean(person.video_stopped_by) ||
        !(sends(person, 'camera') || sends(person, 'screen'));
    const speaks = speaking.has(person.id) && !muted;
    const shares = self ? local.screen : person.sends?.some((source) => source.kind === 'screen');
    const note = listed([
      self ? t(viewer ? 'people.you_watch' : 'people.you') : viewer && t('people.watches'),
      !self && person.role === 'moderator' && t('people.moderator'),
      person.speaker_allowed === false && t('people.listens'),
      person.muted_by && t('people.muted_by_moderator'),
      shares && labelOf(person, 'screen'),
    ]);
    const link = self ? 'good' : linkOf(person);
    const hand = Boolean(person.hand_raised_at);
    const name = nameOf(person);
    let entry = rows.get(person.id);
    if (!entry) rows.set(person.id, (entry = row(person.id)));
    seen.add(person.id);
    const pinned = pins?.pinned === person.id;
    const key = JSON.stringify([name, note, viewer, muted, dark, speaks, link, hand, pinned]);
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
      const quality = link === 'good' ? [] : [icon('bars', `link ${link}`)];
      const raised = hand ? [icon('hand', 'raised')] : [];
      entry.signs.replaceChildren(entry.bars, ...raised, ...quality, ...signs);
      entry.menu.setAttribute('aria-label', t('people.menu', { name }));
      const sends = [!viewer && muted && t('people.muted'), !viewer && dark && t('people.dark')];
      const bad = link !== 'good' && t(`people.${link}`);
      const states = [note, hand && t('people.hand'), speaks && t('people.speaking'), ...sends, bad];
      entry.node.setAttribute('aria-label', listed([name, ...states]));
    }
    entry.menu.onclick = () => openPersonMenu(entry.menu, local, person.id, about);
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

/** Draws who waits to be admitted, the queue of raised hands, and the field to search. */
export function drawPanel(session, { moderates }) {
  const { room } = session;
  drawWaiters(session, moderates ? (room.waiting ?? []) : []);
  drawQueue(session, moderates);
  $('search-row').hidden = room.participants.length <= SEARCHABLE;
  if ($('search-row').hidden) $('search').value = '';
  filter();
  $('search').oninput = filter;
}

/** Replaces the rows of a list if they have changed. The focus stays in the list. */
function replace(list, key, rows) {
  if (list.dataset.key === key) return;
  list.dataset.key = key;
  const inside = list.contains(document.activeElement);
  list.replaceChildren(...rows());
  if (inside) (list.querySelector('button') ?? $('panel')).focus({ preventScroll: true });
}

function small(person, ...buttons) {
  const avatar = el('span', { class: 'avatar', 'aria-hidden': 'true' }, initialsOf(person));
  avatar.style.setProperty('--hue', hueOf(person.id));
  const name = nameOf(person);
  return el('li', { class: 'person' }, avatar, el('span', { class: 'who' }, el('b', {}, name)), ...buttons);
}

function drawWaiters(session, waiting) {
  const { length: count } = waiting;
  $('waiters').hidden = count === 0;
  $('waiters-heading').textContent = t('people.waiting', { count });
  $('admit-all').hidden = count < 2;
  $('admit-all').onclick = () => perform(session, { path: '/v1/rooms/{room}/participants/admit', method: 'POST' });
  $('people-toggle').classList.toggle('calls', count > 0);
  const decide = (person, action, ...content) => {
    const label = t(`people.${action}_name`, { name: nameOf(person) });
    const button = el('button', { type: 'button', class: `small ${action}`, 'aria-label': label }, ...content);
    button.onclick = () => perform(session, requestFor(action, person.id, session.room));
    return button;
  };
  replace($('waiting-people'), JSON.stringify(waiting.map(({ id, name, initials }) => [id, name, initials])), () =>
    waiting.map((person) =>
      small(person, decide(person, 'refuse', icon('close')), decide(person, 'admit', t('people.admit'))),
    ),
  );
}

function drawQueue(session, moderates) {
  const { hands = [], participants } = session.room;
  const raised = hands.map((id) => participants.find((person) => person.id === id)).filter(Boolean);
  $('queue').hidden = !raised.length;
  const key = JSON.stringify([moderates, session.id, raised.map((person) => [person.id, nameOf(person)])]);
  replace($('hands'), key, () =>
    raised.map((person) => {
      if (!moderates && person.id !== session.id) return small(person);
      const label = t('people.lower_name', { name: nameOf(person) });
      const button = el('button', { type: 'button', class: 'small', 'aria-label': label }, t('people.lower'));
      button.onclick = () => session.raiseHand(false, person.id);
      return small(person, button);
    }),
  );
}

/** Shows the people whose name has the text of the search field. */
function filter() {
  const wanted = $('search').value.trim().toLocaleLowerCase();
  let found = 0;
  for (const { node, name } of rows.values()) {
    node.hidden = !name.textContent.toLocaleLowerCase().includes(wanted);
    found += Number(!node.hidden);
  }
  $('nobody').hidden = found > 0 || !wanted;
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
      const muted = self ? !local.microphone : isSilent(person);
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

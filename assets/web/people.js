// people.js: the list of participants with speaking and muted state, drawn from the room document. Rows are reused.

import { el, hueOf, icon, initials } from './ui.js';

const rows = new Map();

function row(id) {
  const avatar = el('span', { class: 'avatar', 'aria-hidden': 'true' });
  avatar.style.setProperty('--hue', hueOf(id));
  const name = el('b');
  const note = el('small');
  const bars = el('span', { class: 'bars', 'aria-hidden': 'true' }, el('i'), el('i'), el('i'));
  const signs = el('span', { class: 'signs' }, bars);
  const node = el('li', { class: 'person', 'data-id': id }, avatar, el('span', { class: 'who' }, name, note), signs);
  return { node, avatar, name, note, signs, bars, key: '' };
}

/** The name to show for a participant. */
export const nameOf = (participant) => participant.name?.trim() || 'Guest';

// Without the field `sends`, all kinds count as sent.
const sends = (person, kind) => !Array.isArray(person.sends) || person.sends.some((source) => source.kind === kind);

/** Draws the name and, without a camera, the avatar over the video of a direct call, which the mixer does not draw. */
export function drawOther(node, person) {
  node.hidden = !person;
  if (!person) return;
  const name = nameOf(person);
  const muted = person.audio_muted === true || !sends(person, 'microphone');
  const dark = person.video_muted === true || !sends(person, 'camera');
  const [avatar, label] = node.children;
  node.classList.toggle('dark', dark);
  avatar.style.setProperty('--hue', hueOf(person.id));
  avatar.textContent = initials(name);
  label.replaceChildren(...(muted ? [icon('mic-off')] : []), el('span', {}, name));
}

/** Draws all participants, including viewers. */
export function drawPeople(list, room, selfId, local) {
  const speaking = new Set(room.speaking ?? []);
  const people = [...room.participants].sort((a, b) => Number(b.id === selfId) - Number(a.id === selfId));
  const seen = new Set();
  people.forEach((person, index) => {
    const self = person.id === selfId;
    const viewer = person.role === 'viewer';
    const muted = self ? !local.microphone : person.audio_muted === true || !sends(person, 'microphone');
    const dark = self
      ? !local.camera
      : person.video_muted === true || !(sends(person, 'camera') || sends(person, 'screen'));
    const speaks = speaking.has(person.id) && !muted;
    const note = viewer
      ? self
        ? 'You, watching'
        : 'Watching'
      : self
        ? 'You'
        : person.role === 'moderator'
          ? 'Moderator'
          : '';
    const name = nameOf(person);
    let entry = rows.get(person.id);
    if (!entry) rows.set(person.id, (entry = row(person.id)));
    seen.add(person.id);
    const key = JSON.stringify([name, note, viewer, muted, dark, speaks]);
    if (entry.key !== key) {
      entry.key = key;
      entry.name.textContent = name;
      entry.avatar.textContent = initials(name);
      entry.note.textContent = note;
      entry.note.hidden = !note;
      entry.node.classList.toggle('speaking', speaks);
      const signs = viewer
        ? [icon('eye')]
        : [...(dark ? [icon('cam-off')] : []), ...(muted ? [icon('mic-off', 'muted')] : [])];
      entry.signs.replaceChildren(entry.bars, ...signs);
      const states = [note, speaks && 'speaking', !viewer && muted && 'muted', !viewer && dark && 'camera off'].filter(
        Boolean,
      );
      entry.node.setAttribute('aria-label', [name, ...states].join(', '));
    }
    if (list.children[index] !== entry.node) list.insertBefore(entry.node, list.children[index] ?? null);
  });
  for (const [id, entry] of rows) {
    if (seen.has(id)) continue;
    entry.node.remove();
    rows.delete(id);
  }
}

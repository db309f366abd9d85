// names.js: names of rooms and people, links to rooms, initials and colours, as pure functions. Does not know the page.

import { t } from './texts.js';

/** Longest name of a room, in characters. */
export const ROOM_NAME_MAX = 64;

// As the server checks (docs/api.md): letters of any script with their combining marks, digits, - and _.
const ROOM_NAME = /^(?:\p{L}\p{M}*|[\p{Nd}_-])+$/u;
const INVISIBLE = /\p{Default_Ignorable_Code_Point}/u;

/** A room name as it is sent: without spaces around it, in NFC. It is not changed otherwise. */
export const tidyRoomName = (text) => text.trim().normalize('NFC');

/** What is wrong with a room name; null if it is valid. */
export function wrongRoomName(text) {
  const name = tidyRoomName(text);
  if (!name) return t('names.enter_room');
  const characters = [...name];
  if (characters.length > ROOM_NAME_MAX)
    return t('names.too_long', { count: characters.length, most: ROOM_NAME_MAX });
  if (ROOM_NAME.test(name) && !INVISIBLE.test(name)) return null;
  const culprit = characters.find((c) => !/[\p{L}\p{M}\p{Nd}_-]/u.test(c) || INVISIBLE.test(c));
  if (!culprit) return t('names.accent');
  if (/\s/u.test(culprit)) return t('names.spaces');
  const invisible = /[\p{C}\p{M}]/u.test(culprit) || INVISIBLE.test(culprit);
  return invisible ? t('names.invisible') : t('names.sign', { sign: culprit });
}

/** A valid name that resembles an invalid one; null if there is none. Only for a suggestion to the user. */
export function suggestRoomName(text) {
  const name = tidyRoomName(text)
    .replace(/[^\p{L}\p{M}\p{Nd}_-]+/gu, '-')
    .replace(/^-+|-+$/g, '');
  const short = [...name].slice(0, ROOM_NAME_MAX).join('').replace(/-+$/, '');
  return short && wrongRoomName(short) === null ? short : null;
}

const decoded = (text) => {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
};

/** The room in a path `/NAME`, or an empty string. */
export function roomOfPath(path) {
  const name = path.replace(/^\/|\/$/g, '');
  return name.includes('/') || name === 'index.html' ? '' : decoded(name);
}

/** Room, token and `watch` of a link to a room, or null if the text is no link. */
export function readLink(text) {
  if (!/^(https?:\/\/|\/|\?|www\.)/i.test(text.trim())) return null;
  let url;
  try {
    url = new URL(text.trim().replace(/^www\./i, 'https://www.'), 'https://link.invalid/');
  } catch {
    return null;
  }
  const { searchParams: query } = url;
  return {
    room: query.get('room') ?? roomOfPath(url.pathname),
    token: query.get('token') ?? '',
    watch: query.has('watch'),
  };
}

// First segments of other paths of the server; the pages of rooms with these names are `/?room=NAME` (docs/api.md).
const RESERVED = ['v1', 'whip', 'whep', 'hls', 'live', 'docs', 'metrics', 'healthz', 'readyz'];

/** The path and query of a room's page; `query` has further parameters. */
export function pathOf(room, query = new URLSearchParams()) {
  const rest = new URLSearchParams(query);
  rest.delete('room');
  const named = !RESERVED.includes(room);
  const pairs = [named ? '' : `room=${encodeURIComponent(room)}`, rest.toString().replace(/=(?=&|$)/g, '')];
  const text = pairs.filter(Boolean).join('&');
  return `/${named ? encodeURIComponent(room) : ''}${text && `?${text}`}`;
}

/** Room and token of an invitation: a link, or a bare token; null if it is neither. */
export function readInvitation(text) {
  const link = readLink(text);
  if (link) return link.token ? link : null;
  const token = text.trim();
  return /^[\w-]+\.[\w-]+\.[\w-]*$/.test(token) ? { room: '', token, watch: false } : null;
}

/** The name to show for a participant: as the mixer draws it, which the document says. */
export const nameOf = ({ id = '', name = '', display_name: shown = '' }) =>
  shown || name.trim() || t('names.guest', { number: id.replace(/^\D+/, '') }).trim();

/** The label of a source of a participant, as on its tile. */
export const labelOf = (participant, source = 'camera') =>
  source === 'screen' ? t('names.screen', { name: nameOf(participant) }) : nameOf(participant);

// The colours of the mixer's avatars, in the mixer's order.
const HUES = [
  '#4f6ec4',
  '#b05470',
  '#3a8476',
  '#a06a38',
  '#7c58b2',
  '#46804a',
  '#bc564a',
  '#327c9e',
  '#944c96',
  '#7a7a3a',
  '#606880',
  '#b45c32',
];

/** The colour of a participant, from the number in its id: the same as the avatar in the mix. */
export function hueOf(id = '') {
  return HUES[(Number(id.match(/\d+$/)?.[0] ?? 0) * 5) % HUES.length];
}

const graphemes = (text) => [...new Intl.Segmenter().segment(text)].map(({ segment }) => segment);

/** One or two initials of a participant, as on the mixer's avatar: those of the document, else of its name. */
export const initialsOf = (participant) => participant.initials || initials(nameOf(participant));

/** One or two initials of a name in any script: of the first and the last word. */
export function initials(name = '') {
  const firsts = name
    .trim()
    .split(/[\s._·‐-]+/)
    .map((word) => graphemes(word).find((sign) => /^[\p{L}\p{N}]/u.test(sign)))
    .filter(Boolean);
  const [first = graphemes(name.trim())[0] ?? '?'] = firsts;
  return (first + (firsts.length > 1 ? firsts.at(-1) : '')).toUpperCase();
}

const pick = (list) => list[Math.floor(Math.random() * list.length)];
const FIRST = 'amber brisk calm coral dusky gentle golden lunar mellow north quiet sunny'.split(' ');
const SECOND = 'bay brook delta garden harbor island lagoon meadow orchard river valley willow'.split(' ');

/** A random room name. */
export function freshRoomName() {
  return `${pick(FIRST)}-${pick(SECOND)}-${10 + Math.floor(Math.random() * 90)}`;
}

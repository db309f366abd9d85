// tiles.js: what the page draws over the tiles of the mixed video: the own raised hand, and reactions that float
// up. The mixer draws the hands of the others.
// Input: the watched view and the room document. Does not know the network.

import { nameOf } from './names.js';
import { contentBox } from './stage.js';
import { $, el } from './ui.js';

const FLOATS = 3600; // ms
const FLOATS_AT_MOST = 24;

/**
 * The place of a tile in a box, in shares of the box: `{ x, y, width, height }`.
 * @param {{ x: number, y: number, width: number, height: number }} tile in pixels of the canvas
 * @param {{ width: number, height: number }} canvas
 * @param {{ width: number, height: number }} box
 */
export function placeOf(tile, canvas, box) {
  const content = contentBox(box.width, box.height, canvas.width / canvas.height);
  const scale = content.width / canvas.width;
  return {
    x: (content.x + tile.x * scale) / box.width,
    y: (content.y + tile.y * scale) / box.height,
    width: (tile.width * scale) / box.width,
    height: (tile.height * scale) / box.height,
  };
}

const percent = (share) => `${(share * 100).toFixed(2)}%`;

/** The place of a participant's camera in the picture; null if it is not shown. */
function camera(session, id) {
  const view = session.direct ? null : session.view();
  const tile = view?.tiles.find(({ participant, source }) => participant === id && (source ?? 'camera') === 'camera');
  const { width, height } = $('picture').getBoundingClientRect();
  return tile && width ? placeOf(tile, view.canvas, { width, height }) : null;
}

/** Draws the raised hand on the own tile, where the local camera covers what the mixer draws. */
export function drawOwnHand(session) {
  const { hands = [] } = session.room;
  const place = hands.includes(session.id) && !$('self-tile').hidden ? camera(session, session.id) : null;
  $('hand-sign').hidden = !place;
  if (!place) return;
  $('hand-sign').style.setProperty('left', percent(place.x));
  $('hand-sign').style.setProperty('top', percent(place.y));
}

/** Lets a reaction float up from the tile of its sender; from the lower edge if there is no tile. */
export function float(session, id, emoji) {
  const box = $('floats');
  if (box.childElementCount >= FLOATS_AT_MOST) box.firstElementChild.remove();
  const place = camera(session, id);
  const person = session.room.participants.find((one) => one.id === id);
  const sign = el('span', { class: 'float' }, el('i', {}, emoji));
  if (!place && person) sign.append(el('small', {}, nameOf(person)));
  const spread = (Math.random() - 0.5) * 0.24;
  const [x, y] = place
    ? [place.x + place.width * (0.5 + spread), place.y + place.height * 0.82]
    : [0.12 + Math.abs(spread), 0.86];
  sign.style.setProperty('left', percent(x));
  sign.style.setProperty('top', percent(y));
  sign.style.setProperty('--sway', `${Math.round((Math.random() - 0.5) * 60)}px`);
  box.append(sign);
  setTimeout(() => sign.remove(), FLOATS);
}

// layouts.js: the panel of layouts: what the user sees, and for moderators what everyone sees.
// Owns the elements of the panel. Input: a session of commingle.js, and the requested view (watched.js).

import { rove } from './keys.js';
import { t } from './texts.js';
import { $, el, toast } from './ui.js';

const SVG = 'http://www.w3.org/2000/svg';
const [WIDTH, HEIGHT, GAP] = [32, 18, 1]; // of a thumbnail

/** @type {[number, number, number, number]} */
const inner = [1, 1, WIDTH - 2, HEIGHT - 2];

/** Layouts of the own view; null: as the room. */
const OWN = [null, 'grid', 'speaker', 'active', 'spotlight'];
const ROOM = [
  'auto',
  'grid',
  'grid_fill',
  'speaker',
  'presentation',
  'stage',
  'side_by_side',
  'picture_in_picture',
  'one_plus_5',
  'one_plus_7',
  'one_plus_9',
  'active',
];

/** `columns` times `rows` rectangles `[x, y, width, height]` in an area. */
function table([x, y, width, height], columns, rows) {
  const [w, h] = [(width - GAP * (columns - 1)) / columns, (height - GAP * (rows - 1)) / rows];
  const at = (n) => [x + (n % columns) * (w + GAP), y + Math.floor(n / columns) * (h + GAP), w, h];
  return Array.from({ length: columns * rows }, (_, n) => at(n));
}

/** A large tile in the upper left of a table of `side` columns and rows. */
function onePlus(side) {
  const cells = table(inner, side, side);
  const [right, below] = [cells[side - 2], cells[(side - 2) * side]];
  const large = [1, 1, right[0] + right[2] - 1, below[1] + below[3] - 1];
  return [large, ...cells.filter((_, n) => n % side === side - 1 || n >= side * (side - 1))];
}

const strip = table([1, 13, WIDTH - 2, 4], 4, 1);
const THUMBNAILS = {
  auto: () => [[1, 1, 14.5, 16], ...table([16.5, 1, 14.5, 16], 1, 2)],
  grid: () => table([3, 1, 26, 16], 2, 2),
  grid_fill: () => table([0, 0, WIDTH, HEIGHT], 2, 2),
  speaker: () => [[6, 1, 20, 11], ...strip],
  presentation: () => [[1, 1, 23, 16], ...table([25, 1, 6, 16], 1, 3)],
  stage: () => [...table([5, 1, 22, 11], 2, 1), ...strip],
  side_by_side: () => table(inner, 2, 1),
  picture_in_picture: () => [[0, 0, WIDTH, HEIGHT], [20, 10, 10, 6]],
  one_plus_5: () => onePlus(3),
  one_plus_7: () => onePlus(4),
  one_plus_9: () => onePlus(5),
  active: () => [inner],
  spotlight: () => [[3, 2, 26, 12]],
};

/** The rectangles of the thumbnail of a layout, in 32 x 18; the first one is the most important. */
export const thumbnail = (kind) => (THUMBNAILS[kind] ?? THUMBNAILS.auto)();

function drawn(kind) {
  const svg = document.createElementNS(SVG, 'svg');
  svg.setAttribute('viewBox', `0 0 ${WIDTH} ${HEIGHT}`);
  svg.setAttribute('aria-hidden', 'true');
  for (const [n, [x, y, width, height]] of thumbnail(kind).entries()) {
    const rect = document.createElementNS(SVG, 'rect');
    const values = { x, y, width, height, rx: Math.min(1.2, height / 4), class: n === 0 ? 'first' : '' };
    for (const [name, value] of Object.entries(values)) rect.setAttribute(name, String(value));
    svg.append(rect);
  }
  return svg;
}

/** Fills a group with a button for each layout; `choose(kind)` is called by them. */
function fill(group, layouts, choose) {
  const buttons = layouts.map((kind) => {
    const key = kind ?? 'as_room';
    const title = t(`layouts.${key}_hint`);
    const attributes = { type: 'button', class: 'layout', 'data-kind': kind ?? '', 'aria-pressed': 'false', title };
    const button = el('button', attributes, drawn(kind ?? 'auto'), el('span', {}, t(`layouts.${key}`)));
    button.onclick = () => choose(kind);
    return button;
  });
  group.replaceChildren(...buttons);
  rove(group);
}

function press(group, kind) {
  for (const button of group.children) {
    const pressed = String(button.dataset.kind === (kind ?? ''));
    if (button.getAttribute('aria-pressed') !== pressed) button.setAttribute('aria-pressed', pressed);
  }
}

export class Layouts {
  #session;
  #watched;

  /** Follows the session until `signal` is aborted. */
  constructor(session, watched, signal) {
    this.#session = session;
    this.#watched = watched;
    const does = (action) => async (kind) => {
      await action(kind).catch(({ message }) => toast(message));
      this.draw();
    };
    const own = does((kind) => watched.choose(kind));
    const ofRoom = does((kind) => this.#change(kind));
    this.name = () => {
      fill($('own-layouts'), OWN, own);
      fill($('room-layouts'), ROOM, ofRoom);
    };
    this.name();
    const show = does(() => session.setView({ selfView: $('my-view').checked ? 'shown' : 'hidden' }));
    $('my-view').addEventListener('change', () => show(), { signal });
    this.moderates = false;
  }

  /** Whether the user may change the layout of the room. */
  set moderates(yes) {
    $('room-layouts-section').hidden = !yes;
  }

  /** Draws the layouts in use. */
  draw() {
    const { room, self, selfView } = this.#session;
    press($('own-layouts'), this.#watched.kind);
    const asRoom = /** @type {HTMLElement} */ ($('own-layouts').firstElementChild);
    const kind = room.layout?.kind ?? 'auto';
    if (asRoom.dataset.drawn !== kind) asRoom.firstElementChild.replaceWith(drawn(kind));
    asRoom.dataset.drawn = kind;
    press($('room-layouts'), kind);
    $('my-view-row').hidden = !self?.sends?.length;
    $('my-view').checked = selfView === 'shown';
    $('own-note').hidden = !self?.receives?.view_fallback;
  }

  /** Changes the layout of the room and keeps its options. */
  async #change(kind) {
    const { tiles: _tiles, ...layout } = this.#session.room.layout ?? {};
    await this.#session.call('/v1/rooms/{room}', { method: 'PATCH', body: { layout: { ...layout, kind } } });
  }
}

// toolbar.js: the controls that have no space in a narrow window move into the menu “More”.
// Owns the button “More” and which controls are visible. Does not know what the controls do.

import { openMenu } from './menu.js';
import { t } from './texts.js';
import { $ } from './ui.js';

/** The controls that move into the menu, the first one first. Microphone, camera, More and Leave stay. */
const MOVES = [
  'fullscreen',
  'studio-toggle',
  'captions-toggle',
  'layouts-toggle',
  'react',
  'screen',
  'people-toggle',
  'hand',
  'chat-toggle',
];

/**
 * How many controls have to move for the others to fit: `widths` are those of all controls with their gaps, `first` the
 * ones that move, `more` is the width of the button “More”.
 * @param {number} space
 * @param {number} fixed the width of the controls that stay
 * @param {number[]} widths of those that move, the first one first
 * @param {number} more
 */
export function moved(space, fixed, widths, more) {
  let needed = widths.reduce((sum, width) => sum + width, fixed);
  if (needed <= space) return 0;
  needed += more;
  let count = 0;
  while (needed > space && count < widths.length) {
    needed -= widths[count];
    count += 1;
  }
  return count;
}

let queued = false;

function lay() {
  queued = false;
  const bar = $('controls');
  const upright = getComputedStyle(bar).flexDirection === 'column';
  const side = upright ? 'height' : 'width';
  const { gap, paddingLeft, paddingRight, paddingTop, paddingBottom } = getComputedStyle(bar);
  const space = Number.parseFloat(gap) || 0;
  const padding = upright ? [paddingTop, paddingBottom] : [paddingLeft, paddingRight];
  const inner = bar.getBoundingClientRect()[side] - padding.reduce((sum, one) => sum + Number.parseFloat(one), 0);
  if (inner <= 0) return;
  const buttons = /** @type {HTMLElement[]} */ ([...bar.children]).filter(({ hidden, id }) => !hidden || id === 'more');
  const size = (button) => (button.id === 'leave' ? Number.parseFloat(getComputedStyle(button)[side]) : round) + space;
  const round = Number.parseFloat(getComputedStyle($('mic'))[side]) || 52;
  const moving = MOVES.map((id) => $(id)).filter((button) => buttons.includes(button));
  const fixed = buttons.filter((button) => button.id !== 'more' && !moving.includes(button));
  const needed = fixed.reduce((sum, button) => sum + size(button), -space);
  const count = moved(inner, needed, moving.map(size), round + space);
  moving.forEach((button, index) => button.classList.toggle('moved', index < count));
  $('more').hidden = count === 0;
  drawBadge(moving.slice(0, count));
}

/** The button “More” shows that a control inside wants attention. */
function drawBadge(inside) {
  const marked = inside.some((button) => button.querySelector('.badge.alert:not(:empty)'));
  $('more').classList.toggle('marked', marked);
}

/** Lays out the controls again, after some of them have appeared or have gone. */
export function layToolbar() {
  if (queued) return;
  queued = true;
  requestAnimationFrame(lay);
}

function openMore() {
  const inside = MOVES.toReversed()
    .map((id) => $(id))
    .filter((button) => !button.hidden && button.classList.contains('moved'));
  const entries = inside.map((button) => ({
    label: button.getAttribute('aria-label'),
    icon: button.querySelector('use').getAttribute('href').slice('#i-'.length),
    act: () => button.click(),
  }));
  openMenu($('more'), t('toolbar.more'), entries);
}

/** Begins to follow the size of the window. */
export function startToolbar() {
  const bar = $('controls');
  new ResizeObserver(layToolbar).observe(bar);
  new MutationObserver(layToolbar).observe(bar, { subtree: true, childList: true, attributeFilter: ['hidden'] });
  $('more').onclick = openMore;
}

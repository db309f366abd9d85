// toolbar.js: the controls that have no space in a narrow window move into the menu “More”.
// Owns the button “More” and which controls are visible. Does not know what the controls do.

import { openMenu } from './menu.js';
import { t } from './texts.js';
import { $ } from './ui.js';

/** The controls that move into the menu, the first one first. Microphone, camera, More and Leave stay. */
const MOVES = [
  'settings-toggle',
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

const BESIDE = 175; // px for the title, and for the messages, beside the controls
let queued = false;

const pixels = (text) => Number.parseFloat(text) || 0;

function lay() {
  queued = false;
  const bar = $('controls');
  const { flexDirection, gap, paddingLeft, paddingRight, paddingTop, paddingBottom } = getComputedStyle(bar);
  const upright = flexDirection === 'column';
  const side = upright ? 'height' : 'width';
  const whole = $('call').getBoundingClientRect()[side];
  if (!whole) return;
  const padding = upright ? pixels(paddingTop) + pixels(paddingBottom) : pixels(paddingLeft) + pixels(paddingRight);
  const beside = upright || matchMedia('(orientation: portrait)').matches ? 0 : 2 * BESIDE;
  const buttons = /** @type {HTMLElement[]} */ ([...bar.children]).filter((one) => !one.hidden && one.id !== 'more');
  const usual = pixels(getComputedStyle($('leave'))[upright ? side : 'height']);
  const size = ({ id }) => pixels(gap) + (id === 'leave' ? pixels(getComputedStyle($('leave'))[side]) : usual);
  const moving = MOVES.map((id) => $(id)).filter((button) => buttons.includes(button));
  const staying = buttons.filter((button) => !moving.includes(button));
  const fixed = staying.reduce((sum, button) => sum + size(button), -pixels(gap));
  const count = moved(whole - padding - beside, fixed, moving.map(size), usual + pixels(gap));
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
function layToolbar() {
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
  new ResizeObserver(layToolbar).observe($('call'));
  new MutationObserver(layToolbar).observe(bar, { subtree: true, childList: true, attributeFilter: ['hidden'] });
  $('more').onclick = openMore;
}

// menu.js: a menu of actions at a button, for the keyboard too; a sheet at the lower edge on phones
// (https://www.w3.org/WAI/ARIA/apg/patterns/menu-button/). Does not know what the actions do.

import { $, el, icon } from './ui.js';

const MARGIN = 8; // px between the menu, its button and the edges of the window
const SHEET = '(max-width: 600px)'; // windows in which a menu is a sheet

/**
 * An entry, or null for a line between entries. `checked` makes it a choice that is on or off.
 * @typedef {{ label: string, icon?: string, note?: string, act: () => void, danger?: boolean,
 *   checked?: boolean }} Entry
 */

/** @type {{ node: HTMLElement, button: HTMLElement, stop: AbortController } | null} */
let shown = null;

/** Whether a menu is open. */
export const menuIsOpen = () => shown !== null;

/** Closes the open menu; with `refocus` the focus returns to its button. */
export function closeMenu(refocus = false) {
  if (!shown) return;
  const { node, button, stop } = shown;
  shown = null;
  stop.abort();
  node.remove();
  button.setAttribute('aria-expanded', 'false');
  if (refocus) button.focus({ preventScroll: true });
}

function row(entry) {
  if (!entry) return el('hr', { role: 'separator' });
  const { label, note, checked, danger = false } = entry;
  const role = checked === undefined ? 'menuitem' : 'menuitemcheckbox';
  const state = checked === undefined ? null : String(checked);
  const attributes = { type: 'button', role, tabindex: '-1', 'aria-checked': state, class: danger ? 'danger' : '' };
  const text = el('span', {}, label, ...(note ? [el('small', {}, note)] : []));
  const button = el('button', attributes, icon(entry.icon ?? 'dot'), text, ...(checked ? [icon('check')] : []));
  button.onclick = () => {
    closeMenu(true);
    entry.act();
  };
  return button;
}

/**
 * Opens a menu at a button, or closes it if it is open there.
 * @param {HTMLElement} button
 * @param {string} title read out, and shown on phones
 * @param {(Entry | null)[]} entries
 */
export function openMenu(button, title, entries) {
  const again = shown?.button === button;
  closeMenu();
  if (again) return;
  const list = el('div', { class: 'menu-list', role: 'menu', 'aria-label': title }, ...entries.map(row));
  const node = el('div', { class: 'menu' }, el('p', { class: 'menu-title', 'aria-hidden': 'true' }, title), list);
  const stop = new AbortController();
  shown = { node, button, stop };
  $('call').append(node);
  button.setAttribute('aria-expanded', 'true');
  if (!matchMedia(SHEET).matches) place(node, button);
  const items = /** @type {HTMLElement[]} */ ([...list.querySelectorAll('button')]);
  items[0]?.focus({ preventScroll: true });
  list.addEventListener('keydown', (event) => steer(event, items));
  const { signal } = stop;
  const outside = ({ target }) => !list.contains(target) && !button.contains(target) && closeMenu();
  document.addEventListener('pointerdown', outside, { capture: true, signal });
  addEventListener('resize', () => closeMenu(), { signal });
  list.addEventListener('focusout', ({ relatedTarget }) => {
    if (relatedTarget && !list.contains(/** @type {Node} */ (relatedTarget))) closeMenu();
  });
}

/** The keyboard inside a menu. */
function steer(event, items) {
  const at = items.indexOf(document.activeElement);
  const next = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: -1 }[event.key];
  if (event.key === 'Escape' || event.key === 'Tab') {
    event.preventDefault();
    closeMenu(true);
  } else if (next !== undefined) {
    event.preventDefault();
    items.at(next % items.length)?.focus();
  } else if (event.key.length === 1 && /\p{L}/u.test(event.key)) {
    const begins = (item) => item.textContent.trim().toLowerCase().startsWith(event.key.toLowerCase());
    [...items.slice(at + 1), ...items].find(begins)?.focus();
  }
}

/** Below the button if there is space, else above, inside the window. */
function place(node, button) {
  const at = button.getBoundingClientRect();
  const { width, height } = node.getBoundingClientRect();
  const below = at.bottom + MARGIN + height <= innerHeight;
  const top = below ? at.bottom + MARGIN / 2 : Math.max(MARGIN, at.top - MARGIN / 2 - height);
  const isRight = at.left + at.width / 2 > innerWidth / 2;
  const left = isRight ? at.right - width : at.left;
  node.style.setProperty('top', `${top}px`);
  node.style.setProperty('left', `${Math.max(MARGIN, Math.min(left, innerWidth - width - MARGIN))}px`);
}

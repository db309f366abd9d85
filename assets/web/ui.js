// ui.js: small helpers of the page: elements, messages and announcements. Does not know calls.

import { t } from './texts.js';

const TOAST = 3200; // ms

/**
 * The element of index.html with this id.
 * @template {string} Id
 * @param {Id} id
 * @returns {Id extends keyof PageElements ? PageElements[Id] : HTMLElement}
 */
export const $ = (id) => /** @type {any} */ (document.getElementById(id));

/** An element: `el('p', { class: 'note' }, 'text', child)`. */
export function el(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes))
    if (value !== null && value !== undefined) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

const SVG = 'http://www.w3.org/2000/svg';

/** An icon of index.html. */
export function icon(name, className = '') {
  const svg = document.createElementNS(SVG, 'svg');
  svg.setAttribute('class', `icon ${className}`);
  svg.setAttribute('aria-hidden', 'true');
  const use = document.createElementNS(SVG, 'use');
  use.setAttribute('href', `#i-${name}`);
  svg.append(use);
  return svg;
}

/** Changes the icon of a button. */
export function setIcon(button, name) {
  button.querySelector('use').setAttribute('href', `#i-${name}`);
}

/** Sets the label and the tooltip of a button. */
export function setLabel(button, label, key) {
  button.setAttribute('aria-label', label);
  button.dataset.tip = key ? `${label} (${key})` : label;
}

/** @type {ReturnType<typeof setTimeout> | number} */
let announcing = 0;
/** Announces a text to screen readers. */
export function announce(text) {
  const node = $('announcer');
  clearTimeout(announcing);
  node.append(el('p', {}, text));
  announcing = setTimeout(() => node.replaceChildren(), 4000);
}

/** @type {ReturnType<typeof setTimeout> | number} */
let toasting = 0;
/** Shows a short message in the status line for some seconds, in place of the one before. */
export function toast(text, hue = '') {
  const dot = el('i');
  if (hue) dot.style.setProperty('--hue', hue);
  const node = el('p', { class: 'toast' }, dot, el('span', {}, text));
  clearTimeout(toasting);
  $('toasts').replaceChildren(node);
  toasting = setTimeout(() => {
    node.classList.add('going');
    toasting = setTimeout(() => node.remove(), 300);
  }, TOAST);
  announce(text);
}

/**
 * Shows advice below the picture until it is dismissed, or until `withdraw(key)`; `button` performs `action` and
 * withdraws it.
 * @param {string} key
 * @param {string} text
 * @param {{ button?: string, action?: () => void, calm?: boolean }} [more] `calm`: nothing is wrong
 */
export function advise(key, text, { button = '', action = () => {}, calm = false } = {}) {
  const close = el('button', { type: 'button', class: 'quiet', 'aria-label': t('ui.dismiss') }, icon('close'));
  close.onclick = () => withdraw(key);
  const act = button ? [el('button', { type: 'button', class: 'small' }, button)] : [];
  for (const node of act)
    node.onclick = () => {
      withdraw(key);
      action();
    };
  withdraw(key);
  const attributes = { class: calm ? 'advice calm' : 'advice', 'data-key': key };
  $('advice').append(el('div', attributes, el('p', {}, text), ...act, close));
}

/** Removes the advice of this key; without a key all. */
export function withdraw(key = '') {
  for (const node of [...$('advice').children])
    if (!key || /** @type {HTMLElement} */ (node).dataset.key === key) {
      const inside = node.contains(document.activeElement);
      node.remove();
      if (inside) $('stage').focus({ preventScroll: true, focusVisible: false });
    }
}

/** Copies a text; resolves with false if the browser refuses. */
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return false;
  }
}

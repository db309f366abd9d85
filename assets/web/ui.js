// ui.js: small helpers of the page: elements, stored settings, toasts, announcements, colours and initials.
// Does not know calls.

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

/** Settings stored in this browser; they are lost if storage is blocked. */
export const memory = {
  get(key, fallback = '') {
    try {
      return localStorage.getItem(`commingle.${key}`) ?? fallback;
    } catch {
      return fallback;
    }
  },
  set(key, value) {
    try {
      localStorage.setItem(`commingle.${key}`, value);
    } catch {
      // Private windows may block storage; the setting is then lost.
    }
  },
};

/** @type {ReturnType<typeof setTimeout> | number} */
let announcing = 0;
/** Announces a text to screen readers. */
export function announce(text) {
  const node = $('announcer');
  clearTimeout(announcing);
  node.append(el('p', {}, text));
  announcing = setTimeout(() => node.replaceChildren(), 4000);
}

/** Shows a short message on the video; at most three at a time. */
export function toast(text, hue) {
  const dot = el('i');
  if (hue) dot.style.setProperty('--hue', hue);
  const node = el('p', { class: 'toast' }, dot, text);
  const box = $('toasts');
  box.append(node);
  while (box.children.length > 3) box.firstChild.remove();
  setTimeout(() => node.classList.add('going'), 3200);
  setTimeout(() => node.remove(), 3500);
  announce(text);
}

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

/** One or two initials of a name, in any script. */
export function initials(name = '') {
  const words = name
    .trim()
    .split(/[\s._-]+/)
    .filter(Boolean);
  const first = (word) => [...(word ?? '')][0] ?? '';
  return (first(words[0]) + (words.length > 1 ? first(words.at(-1)) : '')).toUpperCase() || '?';
}

/** A valid room name from typed or pasted text, which may be a whole link. */
export function roomName(text) {
  const link = text.match(/[?&]room=([^&#]+)/);
  return (link ? decodeURIComponent(link[1]) : text)
    .normalize('NFKD')
    .replace(/[\u0300-\u036f]/g, '')
    .replace(/\s+/g, '-')
    .replace(/[^A-Za-z0-9_-]/g, '')
    .slice(0, 64);
}

const pick = (list) => list[Math.floor(Math.random() * list.length)];
/** A random room name. */
export function freshRoomName() {
  const first = [
    'amber',
    'brisk',
    'calm',
    'coral',
    'dusky',
    'gentle',
    'golden',
    'lunar',
    'mellow',
    'north',
    'quiet',
    'sunny',
  ];
  const second = [
    'bay',
    'brook',
    'delta',
    'garden',
    'harbor',
    'island',
    'lagoon',
    'meadow',
    'orchard',
    'river',
    'valley',
    'willow',
  ];
  return `${pick(first)}-${pick(second)}-${10 + Math.floor(Math.random() * 90)}`;
}

// shortcuts.js: the list of the keys that work in a call.
// Owns the elements of its dialogue. Input: the buttons that have `aria-keyshortcuts`. Does not know what they do.

import { t } from './texts.js';
import { $, el } from './ui.js';

/** Keys, with what they do, that are no buttons. */
const OTHERS = () => [
  [t('shortcuts.space'), t('shortcuts.talk')],
  ['← →', t('shortcuts.move')],
  ['Esc', t('shortcuts.escape')],
  ['?', t('shortcuts.list')],
];

/** The keys of the buttons that can be used now, with their labels. */
function ofButtons() {
  const buttons = /** @type {HTMLElement[]} */ ([...$('controls').querySelectorAll('[aria-keyshortcuts]')]);
  return buttons
    .filter((button) => !button.hidden)
    .map((button) => [
      button.getAttribute('aria-keyshortcuts').split(' ')[0],
      button.getAttribute('aria-label') ?? '',
    ]);
}

/** Opens the list. */
export function showShortcuts() {
  const rows = [...ofButtons(), ...OTHERS()].map(([key, does]) =>
    el('div', {}, el('dt', {}, does), el('dd', {}, el('kbd', {}, key))),
  );
  $('shortcuts-list').replaceChildren(...rows);
  if (!$('shortcuts').open) $('shortcuts').showModal();
}

/** Closes the list, also when the call has ended. */
export const hideShortcuts = () => $('shortcuts').close();

$('shortcuts-close').onclick = hideShortcuts;
// A click outside the dialogue.
$('shortcuts').addEventListener('click', (event) => event.target === $('shortcuts') && hideShortcuts());

// ask.js: a question in a dialogue, with fields. Does not know what the answers mean.

import { el, icon } from './ui.js';
import { t } from './texts.js';

/**
 * A field: a text, or a choice if it has `options` (`[value, label]`).
 * @typedef {{ name: string, label: string, value?: string, options?: [string, string][], maxlength?: number }} Field
 */

/** @param {Field} of */
function field({ name, label, value = '', options, maxlength = 120 }) {
  if (!options) {
    const id = `ask-${name}`;
    const input = el('input', { id, name, value, maxlength: String(maxlength), autocomplete: 'off' });
    return el('div', { class: 'field' }, el('label', { for: id }, label), input);
  }
  const choices = options.map(([of, text]) => {
    const input = el('input', { type: 'radio', name, value: of, checked: of === value ? '' : null });
    return el('label', {}, input, el('span', {}, text));
  });
  return el('fieldset', { class: 'choice' }, el('legend', {}, label), el('div', { class: 'chips' }, ...choices));
}

/**
 * Asks; resolves with the values of the fields by name, or null if the dialogue is dismissed.
 * @param {{ title: string, text?: string, confirm: string, danger?: boolean, fields?: Field[] }} question
 * @returns {Promise<Record<string, string> | null>}
 */
export function ask({ title, text = '', confirm, danger = false, fields = [] }) {
  const close = el('button', { type: 'button', class: 'quiet', 'aria-label': t('ask.close') }, icon('close'));
  const cancel = el('button', { type: 'button', class: 'small' }, t('ask.cancel'));
  const sure = el('button', { type: 'submit', class: danger ? 'small sure danger' : 'small sure' }, confirm);
  const note = text ? [el('p', { class: 'lede-small' }, text)] : [];
  const form = el('form', { class: 'invite-form', method: 'dialog', novalidate: '' }, ...note, ...fields.map(field));
  form.append(el('div', { class: 'ask-buttons' }, cancel, sure));
  const head = el('header', {}, el('h2', { id: 'ask-title' }, title), close);
  const dialog = /** @type {HTMLDialogElement} */ (
    el('dialog', { class: 'dialog ask', 'aria-labelledby': 'ask-title' }, head, form)
  );
  document.body.append(dialog);
  const first = /** @type {HTMLElement} */ (form.querySelector('input:not([type="radio"])') ?? sure);
  return new Promise((resolve) => {
    let answer = null;
    form.addEventListener('submit', () => {
      answer = Object.fromEntries(new FormData(/** @type {HTMLFormElement} */ (form)));
    });
    for (const button of [close, cancel]) button.onclick = () => dialog.close();
    dialog.addEventListener('click', (event) => event.target === dialog && dialog.close()); // outside the dialogue
    dialog.addEventListener('close', () => {
      dialog.remove();
      resolve(answer);
    });
    dialog.showModal();
    first.focus();
    if (first instanceof HTMLInputElement) first.select();
  });
}

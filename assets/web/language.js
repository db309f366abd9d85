// language.js: the choice of the language, in the lobby and in the settings of a call.
// Owns the options of a select element. Does not know where the texts are used: `changed()` draws them again.

import { changeLanguage, language, LANGUAGES } from './texts.js';
import { el } from './ui.js';

/**
 * Fills the element, and calls `changed()` after the user has chosen another language.
 * @param {HTMLSelectElement} select
 * @param {() => void} changed
 */
export function offerLanguages(select, changed) {
  // Each name is in its own language, so that its readers find it, and screen readers pronounce it.
  select.replaceChildren(
    ...Object.entries(LANGUAGES).map(([tag, name]) => el('option', { value: tag, lang: tag }, name)),
  );
  select.value = language;
  select.onchange = async () => {
    if (await changeLanguage(select.value)) changed();
    else select.value = language;
  };
}

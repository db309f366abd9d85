// texts.js: the texts of the page in the user's language.
//
// Owns: `texts/LANGUAGE.json`, the choice of the language, and `t(key, values)`. Does not know: what the texts say. A
// module that imports this one waits until the texts are there.
//
// A text may have placeholders: `"{name} left"`. A text that depends on a number is an object of plural categories
// (Intl.PluralRules): `{ "one": "{count} person", "other": "{count} people" }`; `count` selects.

import { memory } from './memory.js';

/** The languages of the page by their tags (BCP 47), each with its own name. */
export const LANGUAGES = {
  en: 'English',
  ko: '한국어',
  de: 'Deutsch',
  ja: '日本語',
  es: 'Español',
  fr: 'Français',
  ar: 'العربية',
};
const RIGHT_TO_LEFT = new Set(['ar']);
const FALLBACK = 'en';

/**
 * The first language that the page has, else English.
 * @param {readonly string[]} wanted tags, the preferred one first
 */
export function choose(wanted) {
  const primary = wanted.map((tag) => tag.toLowerCase().split('-')[0]);
  return primary.find((tag) => Object.hasOwn(LANGUAGES, tag)) ?? FALLBACK;
}

/** The language of the page: from `?lang=`, the stored choice, or the browser. */
export const language = choose(
  [
    globalThis.location && new URLSearchParams(location.search).get('lang'),
    memory.get('language'),
    ...(globalThis.navigator?.languages ?? []),
  ].filter(Boolean),
);

/** @type {Record<string, string | Record<string, string>>} */
const texts = await read(language);
const fallback = language === FALLBACK ? texts : await read(FALLBACK);
const plural = new Intl.PluralRules(language);

/** The texts of a language; none if they cannot be read. */
async function read(tag) {
  try {
    const response = await fetch(new URL(`texts/${tag}.json`, import.meta.url));
    return response.ok ? await response.json() : {};
  } catch {
    return {};
  }
}

/**
 * The text of a key in the language of the page; in English if the language lacks it.
 * @param {string} key
 * @param {Record<string, string | number>} [values] of the placeholders
 * @returns {string}
 */
export function t(key, values = {}) {
  const found = texts[key] ?? fallback[key] ?? key;
  const text = typeof found === 'string' ? found : (found[plural.select(Number(values.count))] ?? found.other);
  return text.replace(/\{(\w+)\}/g, (whole, name) => String(values[name] ?? whole));
}

/**
 * Translates the elements below `root`: `data-t="key"` is the text, and `data-t-aria-label`, `data-t-title`,
 * `data-t-placeholder` and `data-t-data-tip` name the keys of attributes.
 * @param {ParentNode} root
 */
export function translate(root) {
  for (const node of /** @type {NodeListOf<HTMLElement>} */ (root.querySelectorAll('[data-t]')))
    node.textContent = t(node.dataset.t);
  for (const attribute of ['aria-label', 'title', 'placeholder', 'data-tip'])
    for (const node of root.querySelectorAll(`[data-t-${attribute}]`))
      node.setAttribute(attribute, t(node.getAttribute(`data-t-${attribute}`)));
}

if (globalThis.document) {
  document.documentElement.lang = language;
  document.documentElement.dir = RIGHT_TO_LEFT.has(language) ? 'rtl' : 'ltr';
}

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
/** All languages with the same digits, as the clocks and the mixed picture have them. */
const DIGITS = '-u-nu-latn';
const ATTRIBUTES = ['aria-label', 'title', 'placeholder', 'data-tip'];

/**
 * The first language that the page has, else English.
 * @param {readonly string[]} wanted tags, the preferred one first
 */
export function choose(wanted) {
  const primary = wanted.map((tag) => tag.toLowerCase().split('-')[0]);
  return primary.find((tag) => Object.hasOwn(LANGUAGES, tag)) ?? FALLBACK;
}

/**
 * The function `t` for these texts in a language.
 * @param {string} tag
 * @param {Record<string, string | Record<string, string>>} texts
 * @returns {(key: string, values?: Record<string, string | number>) => string}
 */
export function speaker(tag, texts) {
  const plural = new Intl.PluralRules(tag);
  const number = new Intl.NumberFormat(tag + DIGITS);
  // A name in the other direction must not change the order of the words around it.
  const isolated = (text) => (RIGHT_TO_LEFT.has(tag) ? `\u2068${text}\u2069` : text);
  const shown = (value) => (typeof value === 'number' ? number.format(value) : isolated(value));
  return (key, values = {}) => {
    const found = texts[key] ?? key;
    const text = typeof found === 'string' ? found : (found[plural.select(Number(values.count))] ?? found.other);
    return text.replace(/\{(\w+)\}/g, (whole, name) => (name in values ? shown(values[name]) : whole));
  };
}

/** The texts of a language; null if they cannot be read. */
async function read(tag) {
  const url = new URL(`texts/${tag}.json`, import.meta.url);
  try {
    // The tests run the modules in Node.js, whose fetch reads no files.
    if (url.protocol === 'file:') return JSON.parse(await (await import('node:fs/promises')).readFile(url, 'utf8'));
    const response = await fetch(url);
    return response.ok ? await response.json() : null;
  } catch {
    return null;
  }
}

/** The language of the page: from `?lang=`, the stored choice, or the browser. */
export let language = globalThis.document
  ? choose([new URLSearchParams(location.search).get('lang') ?? '', memory.get('language'), ...navigator.languages])
  : FALLBACK;

/**
 * The text of a key in the language of the page. Numbers are formatted in it.
 * @type {ReturnType<typeof speaker>}
 */
export let t = speaker(language, (await read(language)) ?? (await read(FALLBACK)) ?? {});

/** A number with this many decimals in the language of the page. */
export const decimal = (value, digits = 0) =>
  value.toLocaleString(language + DIGITS, { minimumFractionDigits: digits, maximumFractionDigits: digits });

/** A duration in words, with the unit `hour`, `minute` or `second`. */
export const duration = (value, unit) =>
  value.toLocaleString(language + DIGITS, { style: 'unit', unit, unitDisplay: 'long' });

/** The parts that are texts, with dots between them; parts with figures and units keep their own direction. */
export const dotted = (parts) =>
  parts
    .filter(Boolean)
    .map((part) => (RIGHT_TO_LEFT.has(language) ? `\u2068${part}\u2069` : part))
    .join(' · ');

/** The parts that are texts, as one text. */
export const listed = (parts) => parts.filter(Boolean).join(t('texts.comma'));

/** A time of day in the language of the page. */
export const timeText = (date) => date.toLocaleTimeString(language + DIGITS, { hour: 'numeric', minute: '2-digit' });

/** A date and time in the language of the page. */
export const dateText = (date) =>
  date.toLocaleString(language + DIGITS, { dateStyle: 'medium', timeStyle: 'short' });

/**
 * Translates the elements below `root`: `data-t="key"` is the text, and `data-t-aria-label`, `data-t-title`,
 * `data-t-placeholder` and `data-t-data-tip` name the keys of attributes.
 * @param {ParentNode} root
 */
export function translate(root) {
  for (const node of /** @type {NodeListOf<HTMLElement>} */ (root.querySelectorAll('[data-t]')))
    node.textContent = t(node.dataset.t);
  for (const attribute of ATTRIBUTES)
    for (const node of root.querySelectorAll(`[data-t-${attribute}]`))
      node.setAttribute(attribute, t(node.getAttribute(`data-t-${attribute}`)));
}

/** Translates the document, and shows it: app.css hides it until then. */
function show() {
  const root = document.documentElement;
  root.lang = language;
  root.dir = RIGHT_TO_LEFT.has(language) ? 'rtl' : 'ltr';
  translate(document);
  root.dataset.translated = '';
}

/** Changes the language and remembers it; false if its texts cannot be read. */
export async function changeLanguage(tag) {
  const texts = await read(tag);
  if (!texts) return false;
  memory.set('language', tag);
  language = tag;
  t = speaker(tag, texts);
  show();
  return true;
}

if (globalThis.document) show();

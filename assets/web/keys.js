// keys.js: the keyboard in a call: shortcuts, push-to-talk, and arrow keys in the toolbar. No single key ends a call.
// Does not know the session: `talk(on)` and the buttons of the page do the work.

import { t } from './texts.js';
import { $, announce } from './ui.js';

const SURE = 4000; // ms during which a second press leaves

const shortcuts = () => ({
  m: $('mic'),
  v: $('cam'),
  s: $('screen'),
  f: $('fullscreen'),
  l: $('layouts-toggle'),
  p: $('people-toggle'),
  c: $('chat-toggle'),
  h: $('hand'),
  e: $('react'),
  t: $('captions-toggle'),
  r: $('studio-toggle'),
  d: $('settings-toggle'),
});

/** Whether a key belongs to the focused element rather than to the page. */
const typing = (target) => target.closest('input, select, textarea, dialog, [contenteditable]');

/**
 * Makes a toolbar one stop of the Tab key; arrow keys, Home and End move inside
 * (https://www.w3.org/WAI/ARIA/apg/patterns/toolbar/).
 */
export function rove(toolbar) {
  const all = () => [...toolbar.querySelectorAll('button')];
  const usable = () => all().filter((button) => !button.disabled && !button.matches('[hidden], .moved'));
  const select = (chosen) => {
    for (const button of all()) button.tabIndex = button === chosen ? 0 : -1;
  };
  const refresh = () => {
    const now = usable();
    select(now.find((button) => button.tabIndex === 0) ?? now[0]);
  };
  toolbar.addEventListener('focusin', ({ target }) => select(target.closest('button')));
  toolbar.addEventListener('keydown', (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const now = usable();
    const at = now.indexOf(event.target.closest('button'));
    const right = document.documentElement.dir === 'rtl' ? -1 : 1;
    const next = {
      ArrowRight: at + right,
      ArrowDown: at + 1,
      ArrowLeft: at - right,
      ArrowUp: at - 1,
      Home: 0,
      End: now.length - 1,
    }[event.key];
    if (next === undefined) return;
    event.preventDefault();
    now.at(next % now.length)?.focus();
  });
  new MutationObserver(refresh).observe(toolbar, { subtree: true, attributeFilter: ['hidden', 'disabled', 'class'] });
  refresh();
}

/**
 * A button that a key has to press twice. A pointer presses it once, because it has to be aimed.
 * @param {HTMLButtonElement | HTMLElement} button
 * @param {() => void} action
 */
export function sureKey(button, action) {
  let label = '';
  let tip = '';
  /** @type {ReturnType<typeof setTimeout> | number} */
  let armed = 0;
  const disarm = () => {
    clearTimeout(armed);
    armed = 0;
    button.setAttribute('aria-label', label);
    button.dataset.tip = tip;
  };
  button.onclick = (event) => {
    if (event.detail > 0 || armed) {
      if (armed) disarm();
      action();
      return;
    }
    label = button.getAttribute('aria-label');
    tip = button.dataset.tip;
    button.setAttribute('aria-label', t('keys.press_again'));
    button.dataset.tip = t('keys.press_again');
    announce(t('keys.press_again_said'));
    armed = setTimeout(disarm, SURE);
  };
  button.addEventListener('blur', () => armed && disarm());
}

/**
 * `inCall()` says whether the keys apply, `escape()` closes what is open, `maySpeak()` whether Space is push-to-talk
 * now, `talk(on)` begins and ends talking, `list()` shows all keys.
 */
export function listenToKeys({ inCall, escape, maySpeak, talk, list }) {
  let talking = false;
  let byKeyboard = false; // the focus was moved by a key, so Space belongs to the focused button
  const release = () => {
    if (!talking) return;
    talking = false;
    talk(false);
  };
  const space = (event) => {
    const button = event.target.closest('button, a, [role="radio"], video[controls]');
    if (button && byKeyboard && !talking) return false; // Space presses it
    event.preventDefault();
    return true;
  };
  document.addEventListener('pointerdown', () => (byKeyboard = false), { capture: true, passive: true });
  document.addEventListener(
    'keydown',
    (event) => {
      if (/^(Tab|Arrow|Home|End)/.test(event.key)) byKeyboard = true;
      if (!inCall() || event.ctrlKey || event.metaKey || event.altKey || typing(event.target)) return;
      if (event.key === ' ') {
        if (!space(event) || event.repeat || talking || !maySpeak()) return;
        talking = true;
        talk(true);
        return;
      }
      if (event.repeat) return;
      if (event.key === 'Escape') {
        escape();
        return;
      }
      if (event.key === '?') {
        event.preventDefault();
        list();
        return;
      }
      const button = shortcuts()[event.key.toLowerCase()];
      if (button && !button.hidden && !button.disabled) button.click();
    },
    { capture: true },
  );
  document.addEventListener(
    'keyup',
    (event) => {
      if (event.key !== ' ') return;
      // Browsers press a focused button when Space is released.
      if (inCall() && !typing(event.target)) space(event);
      release();
    },
    { capture: true },
  );
  addEventListener('blur', release);
  document.addEventListener('visibilitychange', release);
}

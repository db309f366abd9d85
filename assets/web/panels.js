// panels.js: the panels beside the picture, of which one is open at a time: people, chat, layout, recording.
// Owns which one is open, and the state of their buttons. Does not know what they show.

import { memory } from './memory.js';
import { $ } from './ui.js';

/** The element and the button of each panel; each has the button `ELEMENT-close`. */
const PANELS = {
  people: ['panel', 'people-toggle'],
  chat: ['chat', 'chat-toggle'],
  layouts: ['layouts', 'layouts-toggle'],
  studio: ['studio', 'studio-toggle'],
};

/** Screens with space for a panel beside the picture. */
const wide = matchMedia('(min-width: 1101px) and (min-height: 501px) and (orientation: landscape)');

export class Panels {
  #changed;

  /** Calls `changed(name)` when another panel is open, with an empty name for none. */
  constructor(changed) {
    this.#changed = changed;
    for (const [name, [panel, button]] of Object.entries(PANELS)) {
      $(button).onclick = () => this.show(this.open === name ? '' : name);
      $(`${panel}-close`).onclick = () => this.#close();
    }
  }

  /** The name of the open panel; empty without one. */
  get open() {
    return $('call').dataset.panel;
  }

  /** Opens what was open in the last call, on a screen with space for it. */
  reset() {
    this.#set(wide.matches && memory.get('people') === 'open' ? 'people' : '');
  }

  /** Opens a panel in place of the one before; none for an empty name. */
  show(name) {
    if (wide.matches) memory.set('people', name === 'people' ? 'open' : 'closed');
    this.#set(name);
    if (name && name !== 'people') $(PANELS[name][0]).focus({ preventScroll: true, focusVisible: false });
  }

  /** Closes the panel by Escape. The focus returns to its button if it was inside. */
  escape() {
    const [panel] = PANELS[this.open] ?? [];
    if (panel) this.#close($(panel).contains(document.activeElement));
  }

  #close(refocus = true) {
    const [, button] = PANELS[this.open] ?? [];
    this.show('');
    if (button && refocus) $(button).focus();
  }

  #set(open) {
    $('call').dataset.panel = open;
    for (const [name, [, button]] of Object.entries(PANELS)) {
      $(button).setAttribute('aria-expanded', String(name === open));
      $(button).classList.toggle('on', name === open);
    }
    this.#changed(open);
  }
}

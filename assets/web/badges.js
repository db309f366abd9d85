// badges.js: the badges on the video that show a running recording or broadcast. All participants see them, and screen
// readers announce them, also after a late join. Input: the room document. Does not know the network.

import { badges, changes, clock, elapsed, spoken } from './air.js';
import { listed } from './texts.js';
import { announce, el } from './ui.js';

export class Badges {
  #box;
  #shown = []; // { badge, seenAt, time, sign }
  #before = null;
  /** @type {ReturnType<typeof setInterval> | number} */
  #ticking = 0;

  constructor(box, signal) {
    this.#box = box;
    this.#box.replaceChildren();
    this.#ticking = setInterval(() => this.#tick(), 1000);
    signal.addEventListener('abort', () => {
      clearInterval(this.#ticking);
      this.#box.replaceChildren();
    });
  }

  /** Draws the badges of the room and announces changes. */
  draw(room) {
    const now = badges(room);
    for (const text of changes(this.#before, now)) announce(text);
    this.#before = now;
    this.#shown = now.map((badge) => {
      const known = this.#shown.find((one) => one.badge.kind === badge.kind);
      if (known?.badge.output === badge.output) return known;
      return { ...(known ?? this.#sign(badge)), badge, seenAt: performance.now() };
    });
    this.#box.replaceChildren(...this.#shown.map((one) => one.sign));
    this.#tick();
  }

  #sign({ kind, label }) {
    const time = el('span', { class: 'air-time' });
    const sign = el('p', { class: `air ${kind}`, role: 'img' }, el('i'), el('b', {}, label), time);
    return { sign, time };
  }

  #tick() {
    for (const { badge, seenAt, time, sign } of this.#shown) {
      const seconds = elapsed(badge.output, seenAt, performance.now());
      const text = badge.output.state === 'starting' ? '' : clock(seconds);
      if (time.textContent !== text) time.textContent = text;
      const said = listed([badge.says, spoken(seconds)]);
      if (sign.getAttribute('aria-label') !== said) sign.setAttribute('aria-label', said);
      sign.classList.toggle('waits', badge.output.state !== 'live');
    }
  }
}

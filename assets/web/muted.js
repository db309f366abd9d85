// muted.js: notices that the user speaks while muted.
//
// Owns: a second, unsent copy of the microphone track while it is muted. Does not know: what the page then says.

import { Meter } from './devices.js';

const LOUD = 0.42; // of the loudness of a meter: speech into the microphone, not a noise in the room
const SPEECH = 450; // ms of the last second that have to be loud
const WINDOW = 1000; // ms
const PAUSE = 20_000; // ms between two hints

/** Decides from the loudness whether to give a hint. Time is an argument. */
export class SpeechDetector {
  #loud = []; // [from, to] of the last second, in ms
  #last = -Infinity; // time of the last hint
  #before = null; // time of the last measurement

  /** Whether to give a hint now; `level` is the loudness, 0 to 1, since the measurement before. */
  hears(level, now) {
    const from = Math.max(this.#before ?? now, now - 200); // timers of hidden pages are late
    this.#before = now;
    this.#loud = this.#loud.filter(([, to]) => to > now - WINDOW);
    if (level >= LOUD) this.#loud.push([from, now]);
    const loud = this.#loud.reduce((sum, [begin, to]) => sum + to - Math.max(begin, now - WINDOW), 0);
    if (loud < SPEECH || now - this.#last < PAUSE) return false;
    this.#last = now;
    this.#loud = [];
    return true;
  }
}

/** Calls `hint()` when the user speaks while `watch(track)` was called with a muted track. */
export class MutedHint {
  #hint;
  #detector = new SpeechDetector();
  #original = null;
  #copy = null;
  #meter = null;

  constructor(hint) {
    this.#hint = hint;
  }

  /** Listens to a track that is muted; to none if it is null or not muted. */
  watch(track) {
    const muted = track && !track.enabled && track.readyState === 'live' ? track : null;
    if (muted === this.#original) return;
    this.#meter?.stop();
    this.#copy?.stop();
    this.#original = muted;
    this.#copy = this.#meter = null;
    if (!muted) return;
    this.#copy = muted.clone(); // the copy has its own switch and is not sent
    this.#copy.enabled = true;
    this.#meter = new Meter(this.#copy, (level) => {
      if (this.#detector.hears(level, performance.now())) this.#hint();
    });
  }
}

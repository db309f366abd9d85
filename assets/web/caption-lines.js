// caption-lines.js: which captions are visible, as pure data. Input: `caption` events and the time.

const SHOWN = 6000; // ms after the last word
const SPEAKERS = 2; // whose captions are visible at a time
const LETTERS = 160; // of one speaker: the end of a long text

/** The captions to show, as pure data: the latest text of the latest speakers. */
export class CaptionLines {
  #lines = []; // { participant, name, text, final, at }, the latest last

  /** Adds the `caption` event that arrived at the time `now` in ms. */
  add({ participant, name, text, final = true }, now) {
    const before = this.#lines.find((line) => line.participant === participant);
    // A final text is followed by the next one; a preliminary one is replaced.
    const kept = before && before.final && now - before.at < SHOWN ? `${before.settled} ` : (before?.kept ?? '');
    const whole = `${kept}${text}`.trim();
    const line = { participant, name, text: whole, kept, settled: final ? whole : '', final, at: now };
    this.#lines = [...this.#lines.filter((one) => one !== before), line].slice(-SPEAKERS);
  }

  /** The lines at the time `now`. */
  at(now) {
    this.#lines = this.#lines.filter((line) => now - line.at < SHOWN);
    return this.#lines.map(({ participant, name, text }) => {
      const cut = text.length > LETTERS ? `…${text.slice(-LETTERS).replace(/^\S*\s/, '')}` : text;
      return { participant, name, text: cut };
    });
  }
}

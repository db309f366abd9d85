// speaker.js: the loudspeaker that the page uses, where the browser lets pages choose it.
//
// Owns: the choice, which is remembered, and the elements that follow it. Does not know: what they play.

import { memory } from './memory.js';

/** @type {Set<HTMLMediaElement>} */
const following = new Set();

/** Whether the browser lets pages choose the loudspeaker. */
export const canChoose = () => typeof HTMLMediaElement !== 'undefined' && 'setSinkId' in HTMLMediaElement.prototype;

/** The id of the chosen loudspeaker; empty for the default one. */
export const chosen = () => memory.get('speaker');

async function apply(element, id) {
  if (canChoose() && /** @type {any} */ (element).sinkId !== id) await /** @type {any} */ (element).setSinkId(id);
}

/** Plays an element through the chosen loudspeaker, now and after another choice. One that is gone is the default. */
export function follow(element) {
  following.add(element);
  apply(element, chosen()).catch(() => {});
}

/** Chooses a loudspeaker; rejects if it cannot be used. */
export async function choose(id) {
  const before = chosen();
  try {
    for (const element of following) await apply(element, id);
    memory.set('speaker', id);
  } catch (error) {
    for (const element of following) await apply(element, before).catch(() => {});
    throw error;
  }
}

/** A sound of half a second for tests, as the URL of a WAV file: two soft tones. */
export function chime() {
  const [rate, seconds] = [16_000, 0.6];
  const samples = new Int16Array(rate * seconds);
  for (let n = 0; n < samples.length; n += 1) {
    const at = n / rate;
    const pitch = at < 0.25 ? 523.25 : 783.99;
    const since = at < 0.25 ? at : at - 0.25;
    samples[n] = 9000 * Math.sin(2 * Math.PI * pitch * at) * Math.min(1, since * 60) * Math.exp(-since * 7);
  }
  const head = new DataView(new ArrayBuffer(44));
  const text = (at, word) => [...word].forEach((sign, n) => head.setUint8(at + n, sign.charCodeAt(0)));
  text(0, 'RIFF');
  head.setUint32(4, 36 + samples.byteLength, true);
  text(8, 'WAVEfmt ');
  head.setUint32(16, 16, true);
  head.setUint16(20, 1, true); // PCM
  head.setUint16(22, 1, true); // channels
  head.setUint32(24, rate, true);
  head.setUint32(28, rate * 2, true);
  head.setUint16(32, 2, true);
  head.setUint16(34, 16, true);
  text(36, 'data');
  head.setUint32(40, samples.byteLength, true);
  return URL.createObjectURL(new Blob([head, samples], { type: 'audio/wav' }));
}

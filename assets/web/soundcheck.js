// soundcheck.js: the test of microphone and loudspeaker before a call: records three seconds and plays them back.
// Owns the recording. Input: a microphone track. Output: texts for the user. Does not know the page.

import { Meter } from './devices.js';
import { follow } from './speaker.js';
import { t } from './texts.js';

const SECONDS = 3;
const AUDIBLE = 0.2; // of the loudness of a meter; less is noise

const player = globalThis.Audio && new Audio();

/** What the user reads after a recording whose loudest moment was `peak`, 0 to 1; null if it is worth playing. */
export const complaintAbout = (peak) => (peak < AUDIBLE ? t('check.quiet') : null);

/** @param {MediaStreamTrack} track @param {(text: string) => void} say */
async function record(track, say) {
  const recorder = new MediaRecorder(new MediaStream([track]));
  const parts = [];
  let peak = 0;
  const meter = new Meter(track, (level) => (peak = Math.max(peak, level)));
  recorder.ondataavailable = ({ data }) => parts.push(data);
  const stopped = new Promise((resolve, reject) => {
    recorder.onstop = resolve;
    recorder.onerror = reject;
  });
  try {
    recorder.start();
    for (let left = SECONDS; left > 0 && recorder.state === 'recording'; left -= 1) {
      say(t('check.speak', { count: left }));
      await new Promise((resolve) => {
        setTimeout(resolve, 1000);
      });
    }
    if (recorder.state === 'recording') recorder.stop();
    await stopped;
  } finally {
    meter.stop();
  }
  return { peak, sound: new Blob(parts, { type: recorder.mimeType }) };
}

/** Plays a sound to its end, or until `stopPlaying()`. */
async function play(sound) {
  follow(player);
  player.src = URL.createObjectURL(sound);
  const over = new Promise((resolve) => {
    player.onended = player.onpause = player.onerror = resolve;
  });
  try {
    await player.play();
    await over;
  } finally {
    URL.revokeObjectURL(player.src);
    player.removeAttribute('src');
  }
}

/** Ends the playback, for example because the user joins. */
export const stopPlaying = () => player?.pause();

/**
 * Records, plays back, and calls `say(text)` with what happens. Never throws.
 * @param {MediaStreamTrack} track of the microphone
 * @param {(text: string) => void} say
 */
export async function checkSound(track, say) {
  try {
    const { peak, sound } = await record(track, say);
    const complaint = complaintAbout(peak);
    if (complaint) return say(complaint);
    say(t('check.listen'));
    await play(sound);
    say(t('check.fine'));
  } catch {
    say(t('check.failed'));
  }
}

// waiting.js: the screen of a person who waits to be admitted: the own picture, and what happens next.
// Owns the elements of this screen. Input: a session of commingle.js.

import { hueOf, initialsOf, nameOf } from './names.js';
import { t } from './texts.js';
import { $ } from './ui.js';

/** Whether a session waits in the lobby of its room. */
export const isWaiting = (session) => session?.self?.state === 'lobby';

/** Draws the screen while the session waits, and hides it afterwards. */
export function drawWaiting(session, room) {
  const waits = isWaiting(session);
  $('wait').hidden = !waits;
  $('call').classList.toggle('waits', waits);
  const track = waits ? session.local.getVideoTracks()[0] : null;
  const video = $('wait-video');
  const shown = /** @type {MediaStream | null} */ (video.srcObject)?.getVideoTracks()[0] ?? null;
  if (shown !== (track ?? null)) video.srcObject = track ? new MediaStream([track]) : null;
  if (!waits) return;
  const avatar = /** @type {HTMLElement} */ ($('wait-card').querySelector('.avatar'));
  avatar.textContent = initialsOf(session.self);
  avatar.style.setProperty('--hue', hueOf(session.id));
  $('wait-card').classList.toggle('dark', !track);
  $('wait-name').textContent = nameOf(session.self);
  const title = session.room.title || room;
  const text = t('waiting.text', { room: title });
  if ($('wait-text').textContent !== text) $('wait-text').textContent = text;
}

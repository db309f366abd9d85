// reactions.js: raising a hand, and the choice of reactions. Owns the two buttons and the choice.
// Input: a session of commingle.js. Does not know where reactions are drawn (tiles.js).

import { rove } from './keys.js';
import { nameOf } from './names.js';
import { t } from './texts.js';
import { drawOwnHand, float } from './tiles.js';
import { $, announce, setLabel } from './ui.js';

const SAID_EVERY = 2000; // ms between two reactions that are read out

let session = null;
let said = -Infinity;

/** Follows a session until `signal` is aborted. */
export function bindReactions(of, signal) {
  session = of;
  said = -Infinity;
  showReactions(false);
  const show = ({ detail: { participant, emoji } }) => {
    float(of, participant, emoji);
    const person = of.room.participants.find(({ id }) => id === participant);
    if (participant === of.id || !person || performance.now() - said < SAID_EVERY) return;
    said = performance.now();
    announce(t('reactions.said', { name: nameOf(person), emoji }));
  };
  of.addEventListener('reaction', show, { signal });
  signal.addEventListener('abort', () => {
    session = null;
    showReactions(false);
    $('floats').replaceChildren();
    $('hand-sign').hidden = true;
  });
}

/** Whether the choice of reactions is open. */
export const reactionsAreOpen = () => !$('reactions').hidden;

/** Opens or closes the choice of reactions. */
export function showReactions(open) {
  const inside = $('reactions').contains(document.activeElement);
  $('reactions').hidden = !open;
  $('react').setAttribute('aria-expanded', String(open));
  $('react').classList.toggle('on', open);
  if (open) /** @type {HTMLElement} */ ($('reactions').firstElementChild).focus({ focusVisible: false });
  else if (inside) $('react').focus();
}

/** Draws the own hand, and the hands on the tiles. */
export function drawReactions() {
  const raised = Boolean(session?.self?.hand_raised_at);
  $('hand').setAttribute('aria-pressed', String(raised));
  $('hand').classList.toggle('on', raised);
  setLabel($('hand'), t(raised ? 'reactions.lower' : 'reactions.raise'), 'H');
  if (session) drawOwnHand(session);
}

$('hand').onclick = () => session?.raiseHand(!session.self?.hand_raised_at);
$('react').onclick = () => showReactions($('reactions').hidden);
for (const button of /** @type {NodeListOf<HTMLElement>} */ ($('reactions').querySelectorAll('button')))
  button.onclick = () => session?.react(button.dataset.emoji);
rove($('reactions'));
document.addEventListener('pointerdown', ({ target }) => {
  const at = /** @type {Element} */ (target);
  if (reactionsAreOpen() && !at.closest('#reactions, #react')) showReactions(false);
});

// captions.js: captions over the lower edge of the picture, with a button that appears with the first caption.
// Owns the button and the lines. Input: `caption` events. Does not know who recognises speech.

import { CaptionLines } from './caption-lines.js';
import { memory } from './memory.js';
import { hueOf } from './names.js';
import { t } from './texts.js';
import { $, el, setLabel, toast } from './ui.js';

let on = memory.get('captions') === 'on';

function drawButton() {
  $('captions-toggle').setAttribute('aria-pressed', String(on));
  $('captions-toggle').classList.toggle('on', on);
  setLabel($('captions-toggle'), t(on ? 'captions.hide' : 'captions.show'), 'T');
  $('captions').hidden = !on;
}

/** Follows a session until `signal` is aborted. */
export function bindCaptions(session, signal) {
  const lines = new CaptionLines();
  let key = '';
  const draw = () => {
    const now = lines.at(performance.now());
    if (JSON.stringify(now) === key) return;
    key = JSON.stringify(now);
    $('captions').replaceChildren(
      ...now.map(({ participant, name, text }) => {
        const who = el('b', {}, name);
        who.style.setProperty('--hue', hueOf(participant ?? ''));
        return el('p', { dir: 'auto' }, who, ' ', text);
      }),
    );
  };
  const ticking = setInterval(draw, 500);
  signal.addEventListener('abort', () => {
    clearInterval(ticking);
    $('captions').replaceChildren();
    $('captions-toggle').hidden = true;
  });
  const receive = ({ detail }) => {
    lines.add(detail, performance.now());
    draw();
    if (!$('captions-toggle').hidden) return;
    $('captions-toggle').hidden = false;
    if (!on) toast(t('captions.available'));
  };
  session.addEventListener('caption', receive, { signal });
  $('captions-toggle').hidden = true;
  drawButton();
}

$('captions-toggle').onclick = () => {
  on = !on;
  memory.set('captions', on ? 'on' : 'off');
  drawButton();
};

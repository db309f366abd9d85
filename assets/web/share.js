// share.js: the buttons that bring other people into the room: an invitation, or the copied link.
// Owns the labels of these buttons. Input: a session of commingle.js.

import { openInvite } from './invite.js';
import { isModerator } from './moderation.js';
import { pathOf } from './names.js';
import { t } from './texts.js';
import { $, copy, setIcon, toast } from './ui.js';

/** Whether the user may create invitations: a moderator by token. Without a key everybody may join by the link. */
const mayInvite = (session) => isModerator(session?.self?.role);

/** Draws the buttons that invite or copy the link. */
export function drawInvite(session) {
  const [label, name, glyph] = mayInvite(session)
    ? [t('call.invite'), t('call.invite_room'), 'invite']
    : [t('call.copy_link'), t('call.copy_room_link'), 'link'];
  if ($('share').lastElementChild.textContent === label) return;
  $('share').lastElementChild.textContent = label;
  $('share').setAttribute('aria-label', name);
  $('invite').lastElementChild.textContent = t(mayInvite(session) ? 'invite.title' : 'call.copy_the_link');
  for (const id of ['share', 'invite']) setIcon($(id), glyph);
}

/** Opens the dialogue of invitations, or copies the link of the room. */
export async function share(session, watching) {
  if (mayInvite(session)) return openInvite(session);
  const query = new URLSearchParams(watching ? [['watch', '']] : []);
  const link = new URL(pathOf($('room-name').dataset.room, query), location.href).href;
  if (!(await copy(link))) {
    if (navigator.share) navigator.share({ url: link }).catch(() => {});
    else toast(link);
    return;
  }
  setIcon($('share'), 'check');
  toast(t('call.link_copied'));
  setTimeout(() => setIcon($('share'), mayInvite(session) ? 'invite' : 'link'), 1800);
}

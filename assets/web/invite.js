// invite.js: the dialogue in which a moderator creates an invitation link (docs/api.md, "Invitations").
// Owns the elements of the dialogue. Input: a session of commingle.js.

import { explain } from './problems.js';
import { dateText, t } from './texts.js';
import { $, announce, copy, toast } from './ui.js';

let session = null;

const complain = (text) => {
  $('invite-error').textContent = text;
  $('invite-error').hidden = !text;
};

/** Opens the dialogue for the room of a session. */
export function openInvite(of) {
  session = of;
  complain('');
  $('invite-result').hidden = true;
  $('invite-create').disabled = false;
  $('invite-dialog').showModal();
}

/** Closes the dialogue, also when the call has ended. */
export function closeInvite() {
  session = null;
  if ($('invite-dialog').open) $('invite-dialog').close();
}

const ROLES = ['viewer', 'participant', 'moderator'];

async function create() {
  const form = new FormData($('invite-form'));
  const { role, ttl } = Object.fromEntries(form);
  const current = session;
  $('invite-create').disabled = true;
  complain('');
  try {
    const made = await current.call('/v1/rooms/{room}/invitations', {
      method: 'POST',
      body: { role, ttl_seconds: Number(ttl) },
    });
    if (current !== session) return;
    $('invite-url').value = new URL(made.url, location.origin).href;
    const may = ROLES.includes(made.role) ? made.role : 'participant';
    $('invite-note').textContent = t(`invite.may_${may}`, { date: dateText(new Date(made.expires_at)) });
    $('invite-result').hidden = false;
    await copyLink();
  } catch (error) {
    // The detail names the limit, for example the remaining validity of the moderator's own token.
    if (current === session) complain(error.status === 422 ? error.message : explain(error, { hasToken: true }).text);
  } finally {
    $('invite-create').disabled = false;
  }
}

async function copyLink() {
  if (await copy($('invite-url').value)) {
    toast(t('invite.invitation_copied'));
    const label = $('invite-copy').querySelector('span');
    label.textContent = t('invite.copied');
    setTimeout(() => (label.textContent = t('invite.copy_again')), 1800);
    return;
  }
  $('invite-url').select();
  announce(t('invite.copy_selected'));
}

$('invite-form').addEventListener('submit', (event) => {
  event.preventDefault();
  create();
});
$('invite-form').addEventListener('change', () => ($('invite-result').hidden = true));
$('invite-copy').onclick = copyLink;
$('invite-close').onclick = closeInvite;
// A click outside the dialogue.
$('invite-dialog').addEventListener('click', (event) => event.target === $('invite-dialog') && closeInvite());

// app.js: the page. It has two screens, the lobby and the call, and connects them with the session.

import { bind, hideCall, showCall } from './call.js';
import { join } from './commingle.js';
import { Devices } from './devices.js';
import { obeyParent, tellParent } from './embed.js';
import { Lobby, query } from './lobby.js';
import { pathOf } from './names.js';
import { explain, request } from './problems.js';
import { t } from './texts.js';
import { $, announce, copy, toast } from './ui.js';
import { Watched } from './watched.js';

const DEVICES_WITHIN = 1500; // ms that a join waits for camera and microphone; if already allowed, they take less

const devices = new Devices();
const watched = new Watched(query);
const page = (window.commingle = { session: null });
const lobby = new Lobby({ devices, join: enter, act });
let stay = null; // aborted at the end of the call, which removes its listeners
let asked = null; // settles when the browser has answered the permission request

function showLobby() {
  hideCall();
  lobby.show();
  if (!lobby.watching) asked = devices.start();
}

async function enter() {
  const wish = lobby.wish;
  if (!wish) return;
  const { watching } = lobby;
  $('join').disabled = true;
  await Promise.race([
    asked,
    new Promise((resolve) => {
      setTimeout(resolve, DEVICES_WITHIN);
    }),
  ]);
  $('join').disabled = false;
  const send = { audio: !watching && devices.may('audio'), video: !watching && devices.may('video') };
  const stream = devices.take();
  const tier = query.get('tier') ?? undefined;
  lobby.hide();
  stay = new AbortController();
  const { signal } = stay;
  const giveUp = () => {
    stay.abort();
    for (const track of stream.getTracks()) track.stop();
    showLobby();
    $('join').focus({ focusVisible: false });
  };
  showCall({ ...wish, stream, watching, tier, giveUp });
  try {
    const session = await join({
      ...wish,
      ...(await watched.options(wish)),
      stream,
      send,
      url: location.origin,
      tier,
      selfView: query.get('self_view'),
      signal,
    });
    page.session = session;
    tellParent('joined', { room: wish.room, participant: session.id });
    bind(session, signal, watched, ended);
    watched.bind(session, signal, ({ message }) => toast(message));
  } catch (error) {
    if (signal.aborted) return;
    for (const track of stream.getTracks()) track.stop();
    showLobby();
    complain(error);
  }
}

function ended({ reason, error, code }) {
  stay?.abort();
  if (page.session) tellParent('left', { room: $('room').value, reason });
  page.session = null;
  if (reason === 'page closed') {
    hideCall();
    return;
  }
  showLobby();
  if (error) {
    complain(error);
    return;
  }
  if (code) lobby.complain(t(`left.${code}`));
  else announce(t('app.left'));
  $('join').focus({ focusVisible: false });
}

/** Explains in the lobby why a join failed. */
function complain(error) {
  const { watching, hasToken } = lobby;
  const { text, actions, field } = explain(error, { room: $('room').value, watching, hasToken });
  lobby.complain(text, field, actions);
  if (!field) $('join').focus({ focusVisible: false });
}

/** The buttons of a problem. */
async function act(action) {
  if (action === 'take_part') {
    lobby.takePart();
    asked = devices.start();
    $('join').focus({ focusVisible: false });
    return;
  }
  if (action === 'watch') lobby.watch();
  if (action === 'retry' || action === 'watch') return enter();
  if (action === 'invitation') return lobby.askInvitation();
  if (action === 'room') {
    lobby.complain('', 'room');
    $('room').select();
    return;
  }
  const room = $('room').value;
  const link = new URL(pathOf(room), location.href).href;
  const text = request(room, link);
  if (navigator.share && matchMedia('(pointer: coarse)').matches) {
    await navigator.share({ text }).catch(() => {}); // the user closed the dialogue
    return;
  }
  const copied = await copy(text);
  lobby.complain(
    copied ? t('app.request_copied') : t('app.send_request', { text }),
    'invitation',
  );
}

obeyParent(() => page.session?.leave());
// Restored from the back-forward cache.
addEventListener('pageshow', (event) => event.persisted && $('lobby').hidden && showLobby());
showLobby();

// notices.js: what the user is told about the moderation of the room, in plain words, as toasts and advice.
// Input: a session of commingle.js. Does not know where the words appear (ui.js).

import { changesOfSelf, requestFor } from './moderation.js';
import { hueOf, nameOf } from './names.js';
import { perform } from './person-menu.js';
import { explain } from './problems.js';
import { t, timeText } from './texts.js';
import { advise, announce, toast, withdraw } from './ui.js';

/**
 * Follows a session until `signal` is aborted. `moderates()` says whether the user is a moderator, `turn(kind, on)`
 * turns a device on or off, `showPeople()` opens the list of people.
 */
export function bindNotices(session, signal, { moderates, turn, showPeople }) {
  const on = (type, handler) => session.addEventListener(type, ({ detail }) => handler(detail), { signal });
  const nameBy = (id) => {
    const person = session.room.participants.find((one) => one.id === id);
    return person ? nameOf(person) : t('notice.a_moderator');
  };
  let before = session.self;
  let waitingKey = '[]';
  const follow = () => {
    const after = session.self;
    for (const key of changesOfSelf(before, after)) toast(t(key));
    if (after) before = after;
    if (after?.muted_by === undefined) withdraw('muted');
  };
  for (const type of ['room', 'joined', 'updated']) on(type, follow);

  on('muted', ({ participant, audio, video, by }) => {
    if (participant !== session.id) return;
    const name = nameBy(by);
    const raise = { button: t('notice.raise_hand'), action: () => session.raiseHand(true) };
    if (audio) advise('muted', t('notice.muted', { name }), raise);
    else withdraw('muted');
    if (video) advise('stopped', t('notice.camera_stopped', { name }));
    else withdraw('stopped');
    if (!audio && !video) toast(t('notice.released'));
  });
  on('asked_to_unmute', ({ by }) => {
    withdraw('muted');
    const text = t('notice.asked_to_unmute', { name: nameBy(by) });
    advise('asked', text, { button: t('notice.unmute'), action: () => turn('audio', true), calm: true });
  });
  on('local', () => session.microphone && withdraw('asked'));
  on('hand', ({ participant, raised_at: at }) => {
    const person = session.room.participants.find((one) => one.id === participant);
    if (!at || !person || participant === session.id) return;
    const text = t('notice.hand', { name: nameOf(person) });
    if (moderates()) toast(text, hueOf(participant));
    else announce(text);
  });
  const drawWaiting = () => {
    const waiting = moderates() ? (session.room.waiting ?? []) : [];
    const key = JSON.stringify(waiting.map(({ id }) => id));
    if (key === waitingKey) return;
    waitingKey = key;
    withdraw('waits');
    const [first] = waiting;
    if (!first) return;
    const admit = () => perform(session, requestFor('admit', first.id, session.room));
    const one = { button: t('people.admit'), action: admit, calm: true };
    const many = { button: t('notice.show_waiting'), action: showPeople, calm: true };
    const alone = t('notice.waits', { name: nameOf(first) });
    const text = waiting.length > 1 ? t('notice.many_wait', { count: waiting.length }) : alone;
    advise('waits', text, waiting.length > 1 ? many : one);
  };
  for (const type of ['room', 'lobby', 'joined', 'updated', 'left']) on(type, drawWaiting);
  on('warning', ({ seconds_left: left, ends_at: at }) => {
    const text = t('notice.ends_soon', { count: Math.max(1, Math.round(left / 60)), time: timeText(new Date(at)) });
    advise('ends', text, { calm: true });
  });
  on('error', ({ code, detail }) => toast(explain({ message: detail, problem: { code } }, { hasToken: true }).text));
}

// chat.js: the panel of the chat: history, new messages, and a field to write to everyone or in private.
// Owns the elements of the panel and the number of unread messages. Input: a session of commingle.js.

import { ChatLog, continues, groups, isPrivate, pieces } from './chat-log.js';
import { hueOf, initials, nameOf } from './names.js';
import { explain } from './problems.js';
import { t, timeText } from './texts.js';
import { $, announce, el, icon, toast } from './ui.js';

const NEAR = 60; // px from the end of the history within which it follows new messages
const EVERYONE = '';
const MODERATORS = 'moderators';

/** A message as elements. A text is never read as HTML. */
function paragraph({ text }) {
  const parts = pieces(text).map((piece) => {
    if (!piece.href) return piece.text;
    const attributes = { href: piece.href, target: '_blank', rel: 'noopener noreferrer nofollow' };
    return el('a', attributes, piece.text);
  });
  return el('p', { dir: 'auto' }, ...parts);
}

export class Chat {
  #session;
  #log = new ChatLog();
  #open = false;
  #unread = 0;
  #fetched = '';
  #moderates = false;
  #last = null; // the latest drawn message

  /** Follows the session until `signal` is aborted. */
  constructor(session, signal) {
    this.#session = session;
    $('chat-log').replaceChildren();
    $('chat-text').value = '';
    this.#complain('');
    this.#fillRecipients();
    const listen = (node, type, handler) => node.addEventListener(type, handler, { signal });
    listen(session, 'chat', ({ detail }) => this.#receive([detail], true));
    listen($('chat-form'), 'submit', (event) => {
      event.preventDefault();
      this.#send();
    });
    listen($('chat-text'), 'input', () => this.#complain(''));
    listen($('chat-text'), 'keydown', (event) => {
      if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      this.#send();
    });
    listen($('chat-to'), 'change', () => this.draw());
    listen($('chat-new'), 'click', () => this.#toEnd());
    listen($('chat-log'), 'scroll', () => this.#isAtEnd && ($('chat-new').hidden = true));
    this.#drawBadge();
  }

  /** Sets whether the panel is open. */
  set open(open) {
    this.#open = open;
    if (!open) return;
    this.#unread = 0;
    this.#drawBadge();
    this.#toEnd();
    if (matchMedia('(pointer: fine)').matches && !$('chat-text').disabled)
      $('chat-text').focus({ preventScroll: true, focusVisible: false });
  }

  /** Sets whether the user is a moderator, who may always write. */
  set moderates(yes) {
    this.#moderates = yes;
    this.draw();
  }

  /** Chooses the recipient of the next message: a participant, or everyone without one. */
  writeTo(id = EVERYONE) {
    this.#fillRecipients();
    $('chat-to').value = id;
    this.draw();
    $('chat-text').focus();
  }

  /** Draws who can be written to, and who may write. Reads the history after each join. */
  draw() {
    const { self, room, location } = this.#session;
    if (location && location !== this.#fetched && self && self.state !== 'lobby') this.#fetch(location);
    this.#fillRecipients();
    const to = $('chat-to').value;
    const refused = room.who_may?.chat === 'moderators' && !this.#moderates && to !== MODERATORS;
    const names = { [EVERYONE]: t('chat.seen_by_all'), [MODERATORS]: t('chat.seen_by_moderators') };
    const person = room.participants.find(({ id }) => id === to);
    const seen = names[to] ?? t('chat.seen_by_one', { name: nameOf(person ?? {}) });
    const who = refused ? t('chat.only_moderators') : seen;
    if ($('chat-who').textContent !== who) $('chat-who').textContent = who;
    $('chat-form').classList.toggle('private', to !== EVERYONE);
    $('chat-text').disabled = $('chat-send').disabled = refused;
  }

  #fillRecipients() {
    const { room, id } = this.#session;
    const others = room.participants.filter((person) => person.id !== id && person.state !== 'lobby');
    const options = [
      [EVERYONE, t('chat.everyone')],
      [MODERATORS, t('chat.moderators')],
      ...others.map((person) => [person.id, nameOf(person)]),
    ];
    const select = $('chat-to');
    const key = JSON.stringify(options);
    if (select.dataset.key === key) return;
    select.dataset.key = key;
    const before = select.value;
    select.replaceChildren(...options.map(([value, label]) => el('option', { value }, label)));
    // Somebody who has left is not replaced by everyone without a word: the message would be public.
    if (options.some(([value]) => value === before)) select.value = before;
    else if ($('chat-text').value) this.#complain(t('chat.recipient_left'));
  }

  async #fetch(location) {
    this.#fetched = location;
    try {
      const history = await this.#session.call('/v1/rooms/{room}/chat');
      this.#receive(Array.isArray(history) ? history : (history.messages ?? []), false);
    } catch {
      this.#fetched = ''; // the next change of the room tries again
    }
  }

  /** @param {boolean} live whether the messages are new for everyone, not history */
  #receive(messages, live) {
    const fresh = this.#log.add(messages);
    if (!fresh.length) return;
    const follow = this.#isAtEnd;
    const inOrder = fresh.length === 1 && this.#log.messages.at(-1) === fresh[0];
    if (inOrder) this.#append(fresh[0]);
    else this.#drawAll();
    const mine = fresh.some(({ participant }) => participant === this.#session.id);
    const news = live ? fresh.filter(({ participant }) => participant !== this.#session.id) : [];
    if (follow || mine) this.#toEnd();
    else if (news.length) $('chat-new').hidden = false;
    for (const message of news) this.#tell(message);
  }

  #tell(message) {
    const key = isPrivate(message) ? 'chat.says_privately' : 'chat.says';
    const said = t(key, { name: message.name, text: message.text });
    if (this.#open) return announce(said);
    this.#unread += 1;
    this.#drawBadge();
    toast(said, hueOf(message.participant ?? ''));
  }

  #drawBadge() {
    const text = this.#unread > 99 ? '99+' : String(this.#unread || '');
    $('chat-badge').textContent = text;
    const label = this.#unread ? t('chat.open_unread', { count: this.#unread }) : t('chat.title');
    $('chat-toggle').setAttribute('aria-label', label);
  }

  // History ---------------------------------------------------------------------------------------------------------

  get #isAtEnd() {
    const { scrollTop, scrollHeight, clientHeight } = $('chat-log');
    return scrollHeight - scrollTop - clientHeight < NEAR;
  }

  #toEnd() {
    $('chat-new').hidden = true;
    $('chat-log').scrollTop = $('chat-log').scrollHeight;
  }

  #drawAll() {
    $('chat-log').replaceChildren(...groups(this.#log.messages).map((group) => this.#group(group)));
    this.#last = this.#log.messages.at(-1);
  }

  #append(message) {
    if (continues(this.#last, message)) $('chat-log').lastElementChild.lastElementChild.append(paragraph(message));
    else $('chat-log').append(this.#group([message]));
    this.#last = message;
  }

  #group(messages) {
    const [{ participant, name, at }] = messages;
    const mine = participant !== null && participant === this.#session.id;
    const avatar = el('span', { class: 'avatar', 'aria-hidden': 'true' }, initials(name));
    avatar.style.setProperty('--hue', hueOf(participant ?? ''));
    const who = el('b', { dir: 'auto' }, mine ? t('chat.you') : name);
    const time = el('time', { datetime: at }, timeText(new Date(at)));
    const shown = this.#audience(messages[0], mine);
    const sign = shown ? [el('span', { class: 'to' }, icon('lock'), shown)] : [];
    const text = el('div', { class: 'texts' }, ...messages.map(paragraph));
    const kind = `group ${mine ? 'mine' : ''} ${shown ? 'private' : ''}`;
    return el('li', { class: kind }, avatar, el('div', { class: 'head' }, who, ...sign, time), text);
  }

  /** Who else sees a message, for a private one. */
  #audience(message, mine) {
    if (!isPrivate(message)) return '';
    if (message.to === MODERATORS) return t('chat.to_moderators');
    if (!mine) return t('chat.to_you');
    const { participants } = this.#session.room;
    const names = message.to.map((id) => nameOf(participants.find((person) => person.id === id) ?? { id }));
    return t('chat.to_one', { name: names.join(', ') });
  }

  // Writing ---------------------------------------------------------------------------------------------------------

  #complain(text) {
    $('chat-error').textContent = text;
    $('chat-error').hidden = !text;
  }

  async #send() {
    const text = $('chat-text').value.trim();
    if (!text || $('chat-form').getAttribute('aria-busy') === 'true') return;
    const to = $('chat-to').value;
    const body = { text, ...(to === EVERYONE ? {} : { to: to === MODERATORS ? to : [to] }) };
    $('chat-form').setAttribute('aria-busy', 'true');
    this.#complain('');
    try {
      const sent = await this.#session.call('/v1/rooms/{room}/chat', { method: 'POST', body });
      if (sent?.at) this.#receive([sent], false);
      // What was typed meanwhile stays.
      if ($('chat-text').value.trim() === text) $('chat-text').value = '';
    } catch (error) {
      this.#complain(explain(error, { hasToken: true }).text);
    } finally {
      $('chat-form').removeAttribute('aria-busy');
    }
  }
}

// lobby.js: the screen before the call: camera preview, devices, name, room, invitation, and what went wrong.
// Owns its elements. Does not know the session: app.js joins, and performs the actions of problems.

import { labelsOf, Meter } from './devices.js';
import { offerLanguages } from './language.js';
import {
  freshRoomName,
  pathOf,
  readInvitation,
  readLink,
  roomOfPath,
  suggestRoomName,
  tidyRoomName,
  wrongRoomName,
} from './names.js';
import { actionLabel } from './problems.js';
import { memory } from './memory.js';
import { checkSound, stopPlaying } from './soundcheck.js';
import { t } from './texts.js';
import { $, el, setIcon } from './ui.js';

const MESSAGES = ['asking', 'off', 'none'];
const EMPTY = ['asking', 'denied', 'none', 'insecure', 'busy', 'unplugged'];
const FIELDS = ['name', 'room', 'invitation'];

/** What the address of the page says: parameters, and the room of its path. */
export const query = new URLSearchParams(location.search);

export class Lobby {
  /** Whether the user only watches. */
  watching = query.has('watch');
  #devices;
  #isNamed; // the address of the page has the room
  #meter = null;
  #measured = null;
  #token = query.get('token') ?? '';

  /**
   * `join()` is called when the form is sent, `act(action)` when a button of a problem is pressed.
   * @param {{ devices: any, join: () => void, act: (action: string) => void }} parts
   */
  constructor({ devices, join, act }) {
    this.#devices = devices;
    this.act = act;
    const named = roomOfPath(location.pathname) || query.get('room') || '';
    $('name').value = query.get('name') || memory.get('name');
    $('room').value = named || memory.get('room') || freshRoomName();
    this.#isNamed = Boolean(named);
    $('have-invitation').hidden = Boolean(this.#token);
    devices.addEventListener('change', () => !$('lobby').hidden && this.draw());
    $('lobby-mic').onclick = () => devices.toggle('audio');
    $('lobby-cam').onclick = () => devices.toggle('video');
    $('mic-select').onchange = () => devices.choose('audio', $('mic-select').value);
    $('cam-select').onchange = () => devices.choose('video', $('cam-select').value);
    $('check').onclick = () => this.#check();
    offerLanguages($('language'), () => {
      this.complain('');
      this.#checked('');
      this.draw();
    });
    $('name').oninput = () => {
      memory.set('name', $('name').value.trim());
      this.#drawName();
    };
    $('room').onchange = () => this.#readRoom();
    $('invitation').onchange = () => this.#readInvitation();
    $('have-invitation').onclick = () => this.askInvitation();
    $('take-part').onclick = () => this.act('take_part');
    $('join-form').onsubmit = (event) => {
      event.preventDefault();
      join();
    };
    if (named && wrongRoomName(named)) this.#complainRoom(named);
  }

  /** The values of the form, or null after showing what is wrong with them. */
  get wish() {
    const name = $('name').value.trim();
    this.#readRoom();
    const room = tidyRoomName($('room').value);
    if (!name && !this.watching) this.complain(t('lobby.enter_name'), 'name');
    else if (wrongRoomName(room)) this.#complainRoom(room);
    else if (!this.#readInvitation())
      this.complain(t('lobby.no_invitation'), 'invitation');
    else {
      this.complain('');
      $('room').value = room;
      memory.set('name', name);
      memory.set('room', room);
      if (this.watching) query.set('watch', '');
      if (this.#token) query.set('token', this.#token);
      query.delete('room');
      history.replaceState(null, '', pathOf(room, query));
      return { name: name || t('names.someone'), room, token: this.#token || undefined };
    }
    return null;
  }

  /** Whether there is an invitation. */
  get hasToken() {
    return Boolean(this.#token);
  }

  show() {
    $('lobby').hidden = false;
    document.title = 'commingle';
    this.#drawName();
    this.draw();
  }

  hide() {
    $('lobby').hidden = true;
    $('preview').srcObject = null;
    this.#measure(null);
    this.#checked('');
    stopPlaying();
  }

  /** Records and plays back what the microphone hears. */
  async #check() {
    const track = this.#devices.track('audio');
    if (!track || $('check').getAttribute('aria-busy') === 'true') return;
    $('check').setAttribute('aria-busy', 'true');
    await checkSound(track, (text) => !$('lobby').hidden && this.#checked(text));
    $('check').removeAttribute('aria-busy');
  }

  #checked(text) {
    $('check-said').textContent = text;
  }

  /**
   * Shows what is wrong, with buttons for `actions`; nothing for an empty text. `field` gets the focus.
   * @param {string} text
   * @param {string} [field]
   * @param {string[]} [actions]
   */
  complain(text, field, actions = []) {
    $('error').textContent = text;
    $('problem').hidden = !text;
    this.#offer(actions.map((action) => [actionLabel(action), () => this.act(action)]));
    if (field === 'invitation') this.#showInvitation();
    for (const id of FIELDS) $(id).setAttribute('aria-invalid', String(field === id));
    if (field) $(field).focus();
  }

  /** Shows the field for an invitation. */
  askInvitation() {
    this.#showInvitation();
    $('invitation').focus();
  }

  #showInvitation() {
    $('invitation-field').hidden = false;
    $('have-invitation').hidden = true;
  }

  #offer(buttons) {
    $('problem-actions').replaceChildren(
      ...buttons.map(([label, action]) => {
        const button = el('button', { type: 'button', class: 'small' }, label);
        button.onclick = action;
        return button;
      }),
    );
    $('problem-actions').hidden = !buttons.length;
  }

  /** Explains a wrong room name and suggests a similar one. */
  #complainRoom(name) {
    const suggestion = suggestRoomName(name);
    this.complain(wrongRoomName(name), 'room');
    if (!suggestion) return;
    this.#offer([
      [
        t('lobby.use_name', { name: suggestion }),
        () => {
          $('room').value = suggestion;
          this.complain('');
          $('join').focus();
        },
      ],
    ]);
  }

  /** Takes the room and the invitation out of a link in the field for the room. */
  #readRoom() {
    const link = readLink($('room').value);
    if (!link) return;
    $('room').value = link.room;
    if (link.token) this.#accept(link);
  }

  /** Takes the invitation out of its field; false if there is none in it. */
  #readInvitation() {
    const text = $('invitation').value.trim();
    if (!text) return true;
    const invitation = readInvitation(text);
    if (!invitation) return false;
    if (invitation.room) $('room').value = invitation.room;
    this.#accept(invitation);
    return true;
  }

  #accept({ token, watch }) {
    this.#token = token;
    if (watch && !this.watching) this.watch();
  }

  /** Changes to watching. */
  watch() {
    this.watching = true;
    this.#devices.stop();
    this.draw();
  }

  /** Changes back to taking part. */
  takePart() {
    this.watching = false;
    query.delete('watch');
    this.complain('');
    this.draw();
  }

  draw() {
    const { watching } = this;
    const devices = this.#devices;
    const { audio, video } = devices.status;
    const card = $('preview-card');
    const track = devices.track('video');
    card.dataset.state = watching ? 'watch' : video;
    if (track && /** @type {MediaStream} */ ($('preview').srcObject)?.getVideoTracks()[0] !== track)
      $('preview').srcObject = new MediaStream([track]);
    if (!track) $('preview').srcObject = null;
    const advice = watching ? '' : devices.advice;
    const inCard = video !== 'on' && advice !== ''; // the space of the missing camera shows the advice
    const message = MESSAGES.includes(video) ? t(`lobby.camera_${video}`) : '';
    $('preview-text').textContent = watching ? t('lobby.will_watch') : inCard ? advice : message;
    $('preview-icon').setAttribute('href', watching ? '#i-eye' : video === 'asking' ? '#i-cam' : '#i-cam-off');
    $('eyebrow').textContent = watching ? t('lobby.watching') : '';
    $('eyebrow').hidden = $('take-part').hidden = !watching;
    /** @type {[string, HTMLElement, string][]} */
    const switches = [
      ['audio', $('lobby-mic'), 'mic'],
      ['video', $('lobby-cam'), 'cam'],
    ];
    for (const [kind, button, name] of switches) {
      const on = devices.status[kind] === 'on';
      button.classList.toggle('off', !on && devices.status[kind] !== 'asking');
      button.setAttribute('aria-pressed', String(on));
      button.setAttribute('aria-label', t(`lobby.${name}_${on ? 'on' : 'off'}`));
      setIcon(button, on || devices.status[kind] === 'asking' ? name : `${name}-off`);
      this.#drawChoices(kind, $(`${name}-select`));
    }
    $('devices').hidden = $('preview-controls').hidden = watching;
    $('check').disabled = !devices.track('audio') || !globalThis.MediaRecorder;
    $('device-note').textContent = inCard ? '' : advice;
    $('device-note').hidden = inCard || !advice;
    const missing = (status) => !['on', 'asking', 'off'].includes(status);
    const silent = !watching && missing(audio) && missing(video);
    $('join').textContent = t(watching ? 'lobby.watch' : silent ? 'lobby.listen' : 'lobby.join');
    $('hint').textContent = t(this.#isNamed ? 'lobby.share_link' : 'lobby.share_name');
    this.#drawName();
    this.#measure(devices.track('audio'));
  }

  #drawChoices(kind, select) {
    const devices = this.#devices;
    const list = devices.available[kind].filter((d) => d.deviceId);
    const current = devices.track(kind)?.getSettings().deviceId ?? memory.get(`${kind}-device`);
    const fallback = t(kind === 'audio' ? 'lobby.microphone' : 'lobby.camera');
    const labels = labelsOf(list, fallback);
    if (!labels.length) {
      const status = devices.status[kind];
      labels.push(['', EMPTY.includes(status) ? t(`lobby.device_${status}`) : fallback]);
    }
    const key = JSON.stringify([labels, current]);
    if (select.dataset.key === key) return;
    select.dataset.key = key;
    select.replaceChildren(...labels.map(([value, label]) => el('option', { value }, label)));
    if (list.some((d) => d.deviceId === current)) select.value = current;
    select.disabled = !list.length;
  }

  #measure(track) {
    if (track === this.#measured) return;
    this.#measured = track;
    this.#meter?.stop();
    const show = (level) => {
      const bars = $('meter').children;
      for (let i = 0; i < bars.length; i += 1) bars[i].classList.toggle('lit', level * bars.length > i + 0.25);
      $('meter').setAttribute('aria-valuenow', String(Math.round(level * 100)));
    };
    this.#meter = track ? new Meter(track, show) : null;
    if (!track) show(0);
  }

  #drawName() {
    const name = $('name').value.trim();
    $('preview-name').textContent = name;
    $('preview-name').hidden = !name || this.watching;
  }
}

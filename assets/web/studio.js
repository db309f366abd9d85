// studio.js: the panel for moderators: recordings, broadcasts, inputs, and the recorded files.
// Owns the elements of the panel and the player. Input: a session of commingle.js.

import { facts, fileFacts, isRunning, playable, running, title, wrongSource, wrongTarget } from './air.js';
import { play } from './hls.js';
import { explain } from './problems.js';
import { dateText, dotted, t } from './texts.js';
import { $, announce, copy, el, icon, toast } from './ui.js';

const REFRESH = 400; // ms during which several refreshes of the list are combined
const SURE = 4000; // ms during which a second press deletes
const KINDS = [
  ['recording', 'recordings'],
  ['broadcast', 'broadcasts'],
  ['input', 'inputs'],
];

export class Studio {
  #session;
  #signal;
  #allowed;
  #open = false;
  #rows = new Map(); // `recording o1` → { node, texts }
  #seen = new WeakMap(); // when a document was received
  #files = [];
  /** @type {ReturnType<typeof setTimeout> | number} */
  #refreshing = 0;
  #key = '';
  #dismissed = new Set(); // failed ones that the user does not want to see any more
  #stopPlaying = () => {};

  /** Calls `allowed(yes)` when it is known whether the user may use the panel. */
  constructor(session, signal, allowed) {
    this.#session = session;
    this.#signal = signal;
    this.#allowed = allowed;
    const listen = (node, type, handler) => node.addEventListener(type, handler, { signal });
    listen($('start-form'), 'submit', (event) => {
      event.preventDefault();
      this.#start();
    });
    listen($('start-form'), 'change', () => this.#drawForm());
    listen($('player'), 'close', () => this.#stopPlaying());
    // A click outside the dialogue.
    listen($('player'), 'click', (event) => event.target === $('player') && $('player').close());
    listen($('player-close'), 'click', () => $('player').close());
    const ticking = setInterval(() => this.#open && this.#tick(), 1000);
    signal.addEventListener('abort', () => {
      clearInterval(ticking);
      clearTimeout(this.#refreshing);
      if ($('player').open) $('player').close();
      this.#stopPlaying();
      $('outputs').replaceChildren();
      $('files').replaceChildren();
    });
    this.#drawForm();
    this.#fetch();
  }

  /** Sets whether the panel is open. */
  set open(open) {
    this.#open = open;
    if (!open) return;
    this.draw(this.#session.room);
    this.#refresh();
  }

  /** Draws the running outputs and inputs of the room. */
  draw(room) {
    const key = JSON.stringify([
      this.#session.location,
      (room.recordings ?? []).map((r) => [r.id, r.state, r.files, r.upload]),
    ]);
    if (key !== this.#key) this.#refresh();
    this.#key = key;
    const list = KINDS.flatMap(([kind, name]) => (room[name] ?? []).map((output) => [kind, output]));
    // Failed ones stay visible with their reason until they are dismissed.
    const failed = ([kind, output]) => output.state === 'failed' && !this.#dismissed.has(`${kind} ${output.id}`);
    const shown = list.filter((one) => isRunning(one[1]) || failed(one));
    $('on-air').hidden = !shown.length;
    const keys = new Set();
    shown.forEach(([kind, output], index) => {
      const name = `${kind} ${output.id}`;
      keys.add(name);
      if (!this.#seen.has(output)) this.#seen.set(output, performance.now());
      let row = this.#rows.get(name);
      if (!row) this.#rows.set(name, (row = this.#row(kind, output)));
      row.output = output;
      if ($('outputs').children[index] !== row.node)
        $('outputs').insertBefore(row.node, $('outputs').children[index] ?? null);
    });
    for (const [name, row] of this.#rows) {
      if (keys.has(name)) continue;
      row.node.remove();
      this.#rows.delete(name);
    }
    $('in-choice').hidden = room.inputs === undefined;
    this.#tick();
  }

  #row(kind, output) {
    const name = el('b');
    const where = el('small', { class: 'where' });
    const state = el('small', { class: 'state' });
    const why = el('p', { class: 'why', role: 'status' });
    const stop = el('button', { type: 'button', class: 'small stop' }, icon('stop'), t('studio.stop'));
    stop.onclick = () => this.#end(kind, output.id, stop);
    const dismiss = el('button', { type: 'button', class: 'quiet dismiss' }, icon('close'));
    dismiss.onclick = () => {
      this.#dismissed.add(`${kind} ${output.id}`);
      this.draw(this.#session.room);
      $('studio').focus({ preventScroll: true, focusVisible: false });
    };
    const tools = el('span', { class: 'tools', hidden: output.kind === 'hls' ? null : '' });
    if (output.kind === 'hls') {
      const copy = el('button', { type: 'button', class: 'small' }, icon('link'), t('call.copy_link'));
      const watch = el('button', { type: 'button', class: 'small' }, icon('play'), t('lobby.watch'));
      copy.onclick = () => this.#copy(new URL(output.url, this.#session.url('/')).href);
      watch.onclick = () => this.#play(this.#session.url(output.url), t('live.live'), play);
      tools.append(watch, copy);
    }
    const node = el(
      'li',
      { class: `output ${kind}` },
      el('i'),
      el('span', { class: 'who' }, name, where, state),
      stop,
      dismiss,
      tools,
      why,
    );
    return { node, name, where, state, why, stop, dismiss, kind, output };
  }

  #tick() {
    const now = performance.now();
    for (const row of this.#rows.values()) {
      const { output, kind, node } = row;
      const set = (part, text) => part.textContent !== text && (part.textContent = text);
      set(row.name, title(output, kind));
      set(row.where, kind === 'recording' || output.kind === 'hls' ? '' : (output.url ?? ''));
      row.where.hidden = !row.where.textContent;
      set(row.state, dotted(facts(output, kind, this.#seen.get(output) ?? now, now)));
      set(row.why, output.reason ?? '');
      row.why.hidden = !output.reason;
      node.dataset.state = output.state;
      row.stop.hidden = !isRunning(output);
      row.stop.disabled ||= output.state === 'finishing';
      row.stop.setAttribute('aria-label', t('studio.stop_named', { title: title(output, kind) }));
      row.dismiss.hidden = output.state !== 'failed';
      row.dismiss.setAttribute('aria-label', t('studio.dismiss_named', { title: title(output, kind) }));
    }
  }

  // Starting and stopping -------------------------------------------------------------------------------------------

  #drawForm() {
    const { what, target } = Object.fromEntries(new FormData($('start-form')));
    /** @type {NodeListOf<HTMLFieldSetElement>} */
    const parts = $('start-form').querySelectorAll('[data-for]');
    for (const part of parts) {
      const hidden = part.dataset.for !== what;
      part.hidden = part.disabled = hidden;
    }
    $('target-url').parentElement.hidden = target === 'hls';
    $('format').hidden = $('tracks').checked; // separate tracks are always Matroska
    $('start').textContent = t(`studio.start_${what}`);
    this.#complain('');
  }

  #complain(text) {
    $('start-error').textContent = text;
    $('start-error').hidden = !text;
  }

  async #start() {
    /** @type {Record<string, any>} */
    const form = Object.fromEntries(new FormData($('start-form')));
    const { what } = form;
    let body;
    let wrong = null;
    let field = null;
    if (what === 'recording') {
      body = form.tracks ? { kind: 'tracks' } : { format: form.format };
    } else if (what === 'broadcast') {
      const url = (form.url ?? '').trim();
      wrong = form.target === 'hls' ? null : wrongTarget(url);
      field = $('target-url');
      body = form.target === 'hls' ? { kind: 'hls' } : { url };
    } else {
      const url = (form.source ?? '').trim();
      wrong = wrongSource(url);
      field = $('source-url');
      body = { url, ...(form.alias?.trim() && { name: form.alias.trim() }), ...(form.loop && { loop: true }) };
    }
    field?.setAttribute('aria-invalid', String(Boolean(wrong)));
    if (wrong) {
      this.#complain(wrong);
      field.focus();
      return;
    }
    this.#complain('');
    $('start').disabled = true;
    try {
      await this.#session.call(`/v1/rooms/{room}/${what}s`, { method: 'POST', body });
      // The address contains a stream key, so it is cleared.
      if (field) field.value = '';
      announce(t(`studio.starting_${what}`));
    } catch (error) {
      if (!this.#signal.aborted) this.#complain(explain(error, { hasToken: true }).text);
    } finally {
      $('start').disabled = false;
    }
  }

  async #end(kind, id, button) {
    button.disabled = true;
    try {
      await this.#session.call(`/v1/rooms/{room}/${kind}s/${id}`, { method: 'DELETE' });
    } catch (error) {
      button.disabled = false;
      toast(explain(error, { hasToken: true }).text);
    }
  }

  // Recorded files --------------------------------------------------------------------------------------------------

  #refresh() {
    clearTimeout(this.#refreshing);
    this.#refreshing = setTimeout(() => this.#fetch(), REFRESH);
  }

  async #fetch() {
    try {
      const list = await this.#session.call('/v1/recordings?room={room}');
      if (this.#signal.aborted) return;
      this.#files = list;
      this.#allowed(true);
      this.#drawFiles();
      // Upload progress has no events.
      if (this.#open && list.some((file) => file.upload?.state === 'uploading'))
        setTimeout(() => this.#refresh(), 2000);
    } catch (error) {
      if (this.#signal.aborted) return;
      if (error.status === 401 || error.status === 403) this.#allowed(false);
      else if (error.status && this.#open) toast(error.message);
    }
  }

  #drawFiles() {
    const node = $('files');
    const active = /** @type {HTMLElement | null} */ (document.activeElement);
    const focused = node.contains(active) ? active.dataset.focus : null;
    $('no-files').hidden = this.#files.length > 0;
    node.replaceChildren(...this.#files.map((file) => this.#file(file)));
    if (focused)
      /** @type {HTMLElement | null} */ (node.querySelector(`[data-focus="${CSS.escape(focused)}"]`))?.focus();
  }

  #file(file) {
    const began = file.started && new Date(file.started);
    const when =
      began && !Number.isNaN(began.getTime())
        ? dateText(began)
        : file.file;
    const button = (name, label, glyph) =>
      el(
        'button',
        {
          type: 'button',
          class: 'quiet',
          title: label,
          'aria-label': `${label}: ${when}`,
          'data-focus': `${name} ${file.file}`,
        },
        icon(glyph),
      );
    const tools = el('span', { class: 'tools' });
    if (playable(file)) {
      const watch = button('play', t('studio.play'), 'play');
      watch.onclick = () => this.#play(this.#session.url(file.url), when);
      tools.append(watch);
    }
    if (file.url) {
      const link = this.#session.url(`${file.url}?download=1`);
      const get = el(
        'a',
        {
          class: 'quiet',
          href: link,
          download: file.file,
          title: t('studio.download'),
          'aria-label': `${t('studio.download')}: ${when}`,
          'data-focus': `get ${file.file}`,
        },
        icon('download'),
      );
      tools.append(get);
    }
    if (file.state !== 'recording') {
      const bin = button('delete', t('studio.delete'), 'bin');
      bin.onclick = () => this.#delete(file, bin);
      tools.append(bin);
    }
    const trouble = file.reason ?? file.upload?.error;
    const why = trouble ? [el('p', { class: 'why' }, trouble)] : [];
    const where = file.upload?.location && !file.url ? [el('small', { class: 'where' }, file.upload.location)] : [];
    return el(
      'li',
      { class: 'file', 'data-state': file.state, 'data-file': file.file },
      el('span', { class: 'who' }, el('b', {}, when), el('small', {}, dotted(fileFacts(file))), ...where),
      tools,
      ...why,
    );
  }

  async #delete(file, button) {
    if (!button.classList.contains('sure')) {
      button.classList.add('sure');
      button.append(t('studio.delete_sure'));
      announce(t('studio.press_again'));
      setTimeout(() => {
        if (!button.isConnected || button.disabled) return;
        button.classList.remove('sure');
        button.lastChild.remove();
      }, SURE);
      return;
    }
    button.disabled = true;
    try {
      await this.#session.call(`/v1/recordings/${file.file}`, { method: 'DELETE' });
      announce(t('studio.deleted'));
      $('studio').focus();
    } catch (error) {
      toast(error.message);
    }
    this.#refresh();
  }

  /**
   * Plays in the dialogue; the call is muted meanwhile.
   * @param {string} url
   * @param {string} name
   * @param {typeof play} start
   */
  #play(
    url,
    name,
    start = (video, address) => {
      video.src = address;
      return () => {};
    },
  ) {
    const video = $('player-video');
    const mix = $('mix');
    this.#stopPlaying();
    $('player-title').textContent = name;
    $('player-error').hidden = true;
    $('player').showModal();
    const unmute = !mix.muted;
    mix.muted = true;
    const failed = (text) => {
      $('player-error').textContent = text;
      $('player-error').hidden = false;
    };
    video.onerror = () =>
      failed(
        video.error?.code === 4
          ? t('studio.cannot_play')
          : t('studio.playback_failed'),
      );
    const stop = start(video, url, failed);
    video.play().catch(() => {}); // the user can use the controls
    this.#stopPlaying = () => {
      this.#stopPlaying = () => {};
      video.onerror = null;
      stop();
      video.pause();
      video.removeAttribute('src');
      video.load();
      if (unmute) mix.muted = false;
    };
  }

  async #copy(text) {
    toast((await copy(text)) ? t('call.link_copied') : text);
  }
}

/** The number of running recordings and broadcasts, for the button. */
export const count = (room) => running(room.recordings).length + running(room.broadcasts).length;

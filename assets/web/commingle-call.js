// commingle-call.js: the element <commingle-call>, which shows a call in a page of another site.
//
//   <script type="module" src="https://calls.example.org/commingle-call.js"></script>
//   <commingle-call room="daily" token="eyJ…" name="Ann"></commingle-call>
//
// Owns: the frame with the page of the room. Does not know: the call. The server must list the site's origin in
// `http.frame_ancestors`. In: attributes and methods; out: the events `joined` and `left`.

const ATTRIBUTES = ['server', 'room', 'token', 'name', 'lang', 'watch', 'view', 'self-view'];
const PERMISSIONS = ['camera', 'microphone', 'display-capture', 'fullscreen', 'autoplay', 'speaker-selection'];
const MORE_PERMISSIONS = ['screen-wake-lock', 'picture-in-picture', 'clipboard-write', 'web-share'];

// Node.js imports this module in tests, and has no elements.
const Base = globalThis.HTMLElement ?? /** @type {typeof HTMLElement} */ (class {});

/**
 * The address of the page of a room.
 * @param {string} server origin of the server
 * @param {Record<string, string | null>} attributes of the element; null if absent
 * @returns {string} empty without a room
 */
export function addressOf(server, { room, token, name, lang, watch, view, 'self-view': selfView }) {
  if (!room) return '';
  const url = new URL('/', server);
  const query = url.searchParams;
  query.set('room', room);
  for (const [key, value] of Object.entries({ token, name, lang, view, self_view: selfView }))
    if (value) query.set(key, value);
  if (watch !== null && watch !== undefined && watch !== 'false') query.set('watch', '');
  return url.href;
}

export class CommingleCall extends Base {
  static observedAttributes = ATTRIBUTES;
  /** @type {HTMLIFrameElement | null} */
  #frame = null;
  /** @type {AbortController | null} */
  #connected = null;
  #drawing = false;
  /** The id of the participant, while it is in the call. */
  participant = '';

  /** Origin of the server: that of this module unless the attribute `server` names another. */
  get server() {
    return new URL(this.getAttribute('server') || import.meta.url).origin;
  }

  connectedCallback() {
    const root = this.shadowRoot ?? this.attachShadow({ mode: 'open' });
    const style = document.createElement('style');
    style.textContent = `
      :host { display: block; min-height: 320px; aspect-ratio: 16 / 9; background: #101114; border-radius: 12px;
        overflow: hidden }
      :host([hidden]) { display: none }
      iframe { display: block; width: 100%; height: 100%; border: 0 }`;
    this.#frame = document.createElement('iframe');
    const granted = [...PERMISSIONS, ...MORE_PERMISSIONS].map((feature) => `${feature} ${this.server}`);
    this.#frame.allow = granted.join('; ');
    this.#frame.title = this.getAttribute('aria-label') || 'commingle';
    this.#connected = new AbortController();
    addEventListener('message', (event) => this.#heard(event), { signal: this.#connected.signal });
    this.#draw();
    root.replaceChildren(style, this.#frame);
  }

  disconnectedCallback() {
    this.#connected?.abort();
    this.#frame = null;
    this.participant = '';
  }

  attributeChangedCallback() {
    // Several attributes that change in one task load the page once.
    if (!this.#frame || this.#drawing) return;
    this.#drawing = true;
    queueMicrotask(() => {
      this.#drawing = false;
      this.#draw();
    });
  }

  /** Ends the call, as the button of the page does. */
  leave() {
    this.#frame?.contentWindow?.postMessage({ commingle: 'leave' }, this.server);
  }

  #draw() {
    if (!this.#frame) return;
    const values = Object.fromEntries(ATTRIBUTES.map((name) => [name, this.getAttribute(name)]));
    const address = addressOf(this.server, values);
    if (this.#frame.src === address) return;
    if (address) this.#frame.src = address;
    else this.#frame.removeAttribute('src');
  }

  /** @param {MessageEvent} event */
  #heard({ source, origin, data }) {
    if (source !== this.#frame?.contentWindow || origin !== this.server) return;
    if (data?.commingle !== 'joined' && data?.commingle !== 'left') return;
    const { commingle: type, room, participant = '', reason = '' } = data;
    this.participant = type === 'joined' ? participant : '';
    const detail = { room, participant, reason };
    this.dispatchEvent(new CustomEvent(type, { bubbles: true, composed: true, detail }));
  }
}

globalThis.customElements?.define('commingle-call', CommingleCall);

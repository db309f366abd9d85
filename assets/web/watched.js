// watched.js: the view that the page requests: as the room or with another layout, upright on a phone in portrait.
// Input: the user's choice, the orientation of the screen, the room document. Output: `setView` of the session.

const SETTLED = 400; // ms without a change of the orientation: a phone is often turned back
const PHONE = '(orientation: portrait) and (max-width: 600px) and (pointer: coarse)';
const ANSWERED = 1500; // ms that a join waits for the canvas of the room

/** The upright canvas for a phone, with the sides of the room's; null if the room's is upright itself, or square. */
export function upright(canvas) {
  return canvas.width > canvas.height ? { width: canvas.height, height: canvas.width } : null;
}

/**
 * The request for a view with the layout `kind` (null: as the room) and a pinned participant, if there is one; `canvas`
 * is that of the room, null if unknown.
 */
export function request({ kind, pinned = null, portrait, canvas }) {
  const own = portrait && canvas ? upright(canvas) : null;
  if (!kind && !own) return { view: 'program' };
  const layout = kind && pinned ? { kind, pinned: [pinned] } : kind;
  return { view: 'own', layout, canvas: own && `${own.width}x${own.height}` };
}

/** What the URL of the page requests, which is then not changed with the orientation; null without a request. */
export function requestOf(query) {
  const [view, layout, canvas] = ['view', 'layout', 'canvas'].map((name) => query.get(name));
  return (view ?? layout ?? canvas) ? { view: view ?? 'own', layout, canvas } : null;
}

export class Watched {
  #kind = null;
  #pinned = null;
  #fixed;
  #phone = matchMedia(PHONE);
  #requested = ''; // the latest request, as JSON
  #session = null;
  #failed = (_error) => {};
  /** @type {ReturnType<typeof setTimeout> | number} */
  #turning = 0;

  /** `query` is that of the page's URL. */
  constructor(query) {
    this.#fixed = requestOf(query);
    this.#phone.addEventListener('change', () => this.#turn());
    document.addEventListener('focusout', () => this.#turn());
  }

  /** The layout that the user has chosen; null: as the room. */
  get kind() {
    return this.#kind;
  }

  /**
   * The options of `join` for the view. A canvas with more pixels than the room's is refused, so a phone asks for that
   * first. In a new room, in which nobody is to be seen yet, the view follows after the join.
   * @param {{ room: string, token?: string }} wish
   */
  async options({ room, token }) {
    const url = `/v1/rooms/${encodeURIComponent(room)}`;
    const headers = token ? { Authorization: `Bearer ${token}` } : {};
    const asks = this.#phone.matches && !this.#fixed;
    const response = asks && (await fetch(url, { headers, signal: AbortSignal.timeout(ANSWERED) }).catch(() => null));
    const wanted = this.#wanted(response?.ok ? (await response.json()).canvas : null);
    this.#requested = JSON.stringify(wanted);
    return wanted;
  }

  /** Follows the session until `signal` is aborted; `failed(error)` is called when the server refuses a view. */
  bind(session, signal, failed) {
    this.#session = session;
    this.#failed = failed;
    for (const type of ['room', 'joined']) session.addEventListener(type, () => this.#follow(), { signal });
    signal.addEventListener('abort', () => {
      this.#session = this.#kind = this.#pinned = null;
    });
    this.#follow();
  }

  /** The id of the participant that the user has pinned; null without one. */
  get pinned() {
    return this.#pinned;
  }

  /** Shows another layout; null: as the room. */
  async choose(kind) {
    [this.#kind, this.#pinned] = [kind, null];
    await this.#follow();
  }

  /** Shows a participant large; null: nobody any more, and the room as it is. */
  async pin(id) {
    [this.#kind, this.#pinned] = [id && 'speaker', id];
    await this.#follow();
  }

  #wanted(canvas) {
    if (this.#fixed && !this.#kind) return this.#fixed;
    const portrait = this.#phone.matches && !this.#fixed;
    return request({ kind: this.#kind, pinned: this.#pinned, portrait, canvas });
  }

  /** Requests the wanted view if it is another one than before. */
  async #follow() {
    const session = this.#session;
    if (!session?.room.canvas || !session.self) return; // not connected yet
    const wanted = this.#wanted(session.room.canvas);
    const requested = JSON.stringify(wanted);
    if (requested === this.#requested) return;
    this.#requested = requested;
    try {
      await session.setView(wanted);
    } catch (error) {
      this.#failed(error);
    }
  }

  /** The orientation may have changed. While a text is typed, the keyboard of a phone makes its window wide. */
  #turn() {
    clearTimeout(this.#turning);
    this.#turning = setTimeout(() => {
      if (!document.activeElement?.matches('input, textarea')) this.#follow();
    }, SETTLED);
  }
}

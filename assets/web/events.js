// events.js: the events of a room as one session hears them, over a WebSocket that comes back by itself (docs/api.md).
//
// Owns: the socket, and looking whether the session still lives when it closes. Does not know: what events mean. Used by commingle.js.

import { Patience } from './server.js';

/**
 * Told: `heard(event)` for each event, `away()` when the server cannot be reached, `gone()` when the session is over.
 */
export class Events {
  #server;
  #url;
  #location;
  #told;
  #socket = null;
  #patience = new Patience();
  /** @type {ReturnType<typeof setTimeout> | number} */
  #timer = 0;

  /** Of `room`, for the session at `location`. */
  constructor(server, room, location, told) {
    this.#server = server;
    this.#location = location;
    this.#told = told;
    this.#url = server.at(`/v1/rooms/${encodeURIComponent(room)}/events?session=${location.split('/').pop()}`);
    this.#url.protocol = this.#url.protocol.replace('http', 'ws');
    this.open();
  }

  /** Listens, anew where it did: the old socket may hang on a network that is gone. */
  open() {
    clearTimeout(this.#timer);
    const [before, socket] = [this.#socket, new WebSocket(this.#url)];
    this.#socket = socket;
    before?.close();
    socket.onmessage = ({ data }) => {
      if (socket !== this.#socket) return;
      this.#patience.reset();
      this.#told.heard(JSON.parse(data));
    };
    socket.onclose = () => socket === this.#socket && this.#again();
  }

  /** Says something to the room; false when there is no socket to say it on. */
  send(message) {
    if (this.#socket?.readyState !== WebSocket.OPEN) return false;
    this.#socket.send(JSON.stringify(message));
    return true;
  }

  close() {
    clearTimeout(this.#timer);
    const socket = this.#socket;
    this.#socket = null;
    socket?.close();
  }

  #again() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#ask(), this.#patience.next());
  }

  /** Whether the session still lives decides what to do: listen again, or nothing more. */
  async #ask() {
    const socket = this.#socket;
    const response = await this.#server.fetch(this.#location).catch(() => null);
    if (!socket || socket !== this.#socket) return;
    if (response?.status === 404 || response?.status === 410) {
      this.#told.gone();
    } else if (response) {
      this.open();
    } else {
      this.#told.away();
      this.#again();
    }
  }
}

// events.js: the events of a room for one session, over a WebSocket that reconnects by itself (docs/api.md).
//
// Owns: the WebSocket, and the check whether the session still exists after it closes. Does not know: the meaning of
// events. Used by commingle.js.

import { Backoff } from './server.js';

/**
 * Callbacks: `received(event)` for each event, `unreachable()` if the server is not reached, `ended()` if the session
 * has ended.
 */
export class Events {
  #server;
  #url;
  #location;
  #callbacks;
  #socket = null;
  #backoff = new Backoff();
  /** @type {ReturnType<typeof setTimeout> | number} */
  #timer = 0;

  /** The events of `room` for the session at `location`. */
  constructor(server, room, location, callbacks) {
    this.#server = server;
    this.#location = location;
    this.#callbacks = callbacks;
    this.#url = server.at(`/v1/rooms/${encodeURIComponent(room)}/events?session=${location.split('/').pop()}`);
    this.#url.protocol = this.#url.protocol.replace('http', 'ws');
    this.open();
  }

  /** Opens the WebSocket, also in place of an open one, which may hang on a lost network. */
  open() {
    clearTimeout(this.#timer);
    const [before, socket] = [this.#socket, new WebSocket(this.#url)];
    this.#socket = socket;
    before?.close();
    socket.onmessage = ({ data }) => {
      if (socket !== this.#socket) return;
      this.#backoff.reset();
      this.#callbacks.received(JSON.parse(data));
    };
    socket.onclose = () => socket === this.#socket && this.#retry();
  }

  /** Sends a message; false if no WebSocket is open. */
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

  #retry() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#checkSession(), this.#backoff.next());
  }

  /** Reopens the WebSocket if the session still exists. */
  async #checkSession() {
    const socket = this.#socket;
    const response = await this.#server.fetch(this.#location).catch(() => null);
    if (!socket || socket !== this.#socket) return;
    if (response?.status === 404 || response?.status === 410) {
      this.#callbacks.ended();
    } else if (response) {
      this.open();
    } else {
      this.#callbacks.unreachable();
      this.#retry();
    }
  }
}

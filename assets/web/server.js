// server.js: asking the server, and what it refuses. Used by commingle.js.
//
// Owns: who one is to it (the token), and how long to wait before the next try. Does not know: what is asked for.

import { retryAfter } from './wire.js';

const BACKOFF = { first: 500, last: 10_000 }; // ms
const RETRY_AT_MOST = 60_000; // ms that a server may ask us to wait

/** Why a join was refused. `message` is the server's own advice (problem+json `detail`); `status` the HTTP status, 0 when the server was not reached; `retryAfter` ms it asks to wait. */
export class JoinError extends Error {
  constructor(message, status, problem, wait = 0) {
    super(message);
    this.name = 'JoinError';
    this.status = status;
    this.problem = problem;
    this.retryAfter = wait;
  }

  /** Worth trying again later: the server was out of reach, busy or restarting. */
  get passing() {
    return this.status === 0 || this.status === 408 || this.status === 429 || this.status >= 500;
  }
}

/** Nothing came back. */
export const unreachable = () => new JoinError('The server cannot be reached. Check the network.', 0, {});

/** What an answer refuses, and why. */
export async function refusal(response) {
  const problem = await response.json().catch(() => ({}));
  const message = problem.detail || problem.title || `The server answered ${response.status} ${response.statusText}.`;
  const wait = [429, 503].includes(response.status) ? retryAfter(response.headers.get('Retry-After'), Date.now()) : 0;
  return new JoinError(message, response.status, problem, Math.min(wait, RETRY_AT_MOST));
}

/** The server at `base`, asked with `token` where there is one. */
export class Server {
  #base;
  #token;

  constructor(base, token) {
    this.#base = base.replace(/\/$/, '');
    this.#token = token;
  }

  /** The URL of a path of its API. */
  at(path) {
    return new URL(this.#base + path);
  }

  /** fetch that turns "no network" into a JoinError. */
  async fetch(url, init) {
    try {
      return await fetch(url, { ...init, headers: this.#headers(init?.headers), credentials: 'omit', cache: 'no-store' });
    } catch {
      throw unreachable();
    }
  }

  /** The session at `location` is over: it is told so even from a page that closes. */
  async end(location) {
    // It notices by itself within seconds.
    await fetch(location, { method: 'DELETE', headers: this.#headers(), keepalive: true, credentials: 'omit' }).catch(() => {});
  }

  #headers(more = {}) {
    return this.#token ? { Authorization: `Bearer ${this.#token}`, ...more } : more;
  }
}

/** Waits between tries: longer each time, and never for all at the same time. */
export class Patience {
  #tries = 0;
  #wake = () => {};

  /** How many ms to wait before the next try, no less than the server asked for. */
  next(least = 0) {
    const whole = Math.min(BACKOFF.last, BACKOFF.first * 2 ** this.#tries);
    this.#tries += 1;
    return Math.max(whole * (0.5 + Math.random() / 2), least + (Math.random() * BACKOFF.first) / 2);
  }

  /** Waits so long, or until `wake()`. */
  pause(least) {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, this.next(least));
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }

  /** The next try is worth its while now. */
  wake() {
    this.#wake();
  }

  /** A try has succeeded. */
  reset() {
    this.#tries = 0;
  }
}

// server.js: requests to the server and their errors. Used by commingle.js.
//
// Owns: the token, and the waiting time before retries. Does not know: the purpose of requests.

import { retryAfter } from './wire.js';

const BACKOFF_MS = { first: 500, last: 10_000 };
const RETRY_AT_MOST = 60_000; // ms, the longest Retry-After that is honoured

/**
 * Why a request failed. `message` is the server's advice (problem+json `detail`), `status` the HTTP status or 0 if the
 * server was not reached, `retryAfter` the requested delay in ms.
 */
export class JoinError extends Error {
  constructor(message, status, problem, wait = 0) {
    super(message);
    this.name = 'JoinError';
    this.status = status;
    this.problem = problem;
    this.retryAfter = wait;
  }

  /** Whether a later retry may succeed: the server was not reached, busy or restarting. */
  get temporary() {
    return this.status === 0 || this.status === 408 || this.status === 429 || this.status >= 500;
  }
}

/** The error without a response. */
export const unreachable = () => new JoinError('The server cannot be reached. Check your network.', 0, {});

/** The error of a response. */
export async function refusal(response) {
  const problem = await response.json().catch(() => ({}));
  const message = problem.detail || problem.title || `The server answered ${response.status} ${response.statusText}.`;
  const wait = retryAfter(response.headers.get('Retry-After'), Date.now());
  const { status } = response;
  if (status === 403) return new JoinError(message, status, problem, wait); // nothing retries by itself
  return new JoinError(message, status, problem, [429, 503].includes(status) ? Math.min(wait, RETRY_AT_MOST) : 0);
}

/** The server at `base`, with the token `token` if there is one. */
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
      return await fetch(url, {
        ...init,
        headers: this.#headers(init?.headers),
        credentials: 'omit',
        cache: 'no-store',
      });
    } catch {
      throw unreachable();
    }
  }

  /** Ends the session at `location`, also from a page that is closing. */
  async end(location) {
    // If this fails, the server detects the end within seconds.
    await fetch(location, { method: 'DELETE', headers: this.#headers(), keepalive: true, credentials: 'omit' }).catch(
      () => {},
    );
  }

  #headers(more = {}) {
    return this.#token ? { Authorization: `Bearer ${this.#token}`, ...more } : more;
  }
}

/** Delays between retries: increasing, with jitter. */
export class Backoff {
  #tries = 0;
  #wake = () => {};

  /** The delay before the next retry in ms, at least `least`. */
  next(least = 0) {
    const whole = Math.min(BACKOFF_MS.last, BACKOFF_MS.first * 2 ** this.#tries);
    this.#tries += 1;
    return Math.max(whole * (0.5 + Math.random() / 2), least + (Math.random() * BACKOFF_MS.first) / 2);
  }

  /** Waits for the delay or until `wake()`. */
  pause(least) {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, this.next(least));
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }

  /** Ends the current delay. */
  wake() {
    this.#wake();
  }

  /** Resets the delay after a success. */
  reset() {
    this.#tries = 0;
  }
}

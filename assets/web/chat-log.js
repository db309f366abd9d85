// chat-log.js: the messages of the chat, as pure data: what is new, what belongs together, and links in a text.
// Input: `chat` events and the history (docs/api.md, "Chat"). Does not know the page.

const KEPT = 500; // messages
const TOGETHER = 300_000; // ms between two messages of one person that are shown under one name

/**
 * @typedef {{ id: number, at: string, participant: string | null, name: string, text: string,
 *   to?: string[] | 'moderators' }} Message
 */

export class ChatLog {
  /** @type {Message[]} in the order of time */
  messages = [];
  #keys = new Set();

  /** Adds messages; returns those that are new. */
  add(messages) {
    // The ids begin again when a room has ended, so the time is a part of the key.
    const key = ({ id, at }) => `${id} ${at}`;
    const fresh = messages.filter((message) => !this.#keys.has(key(message)));
    for (const message of fresh) this.#keys.add(key(message));
    const order = (a, b) => Date.parse(a.at) - Date.parse(b.at) || a.id - b.id;
    const all = [...this.messages, ...fresh].sort(order);
    for (const message of all.slice(0, -KEPT)) this.#keys.delete(key(message));
    this.messages = all.slice(-KEPT);
    return fresh;
  }
}

/** Whether only some people see a message. */
export const isPrivate = ({ to }) => to !== undefined && to !== null;

const audience = ({ to }) => (Array.isArray(to) ? [...to].sort().join() : (to ?? ''));

/** Whether a message is shown under the name of the one before. */
export function continues(before, message) {
  if (!before || before.participant !== message.participant || before.name !== message.name) return false;
  const apart = Date.parse(message.at) - Date.parse(before.at);
  return audience(before) === audience(message) && apart < TOGETHER;
}

/** The messages in groups of one sender and one audience. */
export function groups(messages) {
  const found = [];
  for (const message of messages) {
    if (continues(found.at(-1)?.at(-1), message)) found.at(-1).push(message);
    else found.push([message]);
  }
  return found;
}

/** A link without the punctuation of the sentence around it. */
function trimmed(link) {
  let end = link.length;
  for (;;) {
    const last = link[end - 1];
    const opened = { ')': '(', ']': '[' }[last];
    const text = link.slice(0, end);
    const unmatched = opened && text.split(last).length > text.split(opened).length;
    if (!/[.,;:!?'"…]/.test(last) && !unmatched) return text;
    end -= 1;
  }
}

/** The URL of a text that may become a link: only http and https, without a name of a user that hides the host. */
function linkOf(text) {
  try {
    const url = new URL(text);
    return /^https?:$/.test(url.protocol) && !url.username && !url.password && url.hostname ? url.href : null;
  } catch {
    return null;
  }
}

/**
 * A text as pieces: plain text, and links.
 * @param {string} text
 * @returns {{ text: string, href?: string }[]}
 */
export function pieces(text) {
  const found = [];
  let from = 0;
  for (const match of text.matchAll(/\bhttps?:\/\/[^\s<>]+/giu)) {
    const link = trimmed(match[0]);
    const href = linkOf(link);
    if (!href) continue;
    if (match.index > from) found.push({ text: text.slice(from, match.index) });
    found.push({ text: link, href });
    from = match.index + link.length;
  }
  if (from < text.length) found.push({ text: text.slice(from) });
  return found;
}

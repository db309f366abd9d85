// embed.js: the page in a frame of another page, usually of the element <commingle-call>.
//
// Owns: the messages between both. Does not know: the call. Which pages may frame this one is decided by the
// configuration `http.frame_ancestors`, so messages to the parent need no other restriction; they hold no secret.

const framed = () => globalThis.parent !== globalThis.window;

/**
 * Tells the parent page that the user has joined or left.
 * @param {'joined' | 'left'} type
 * @param {{ room: string, participant?: string, reason?: string }} detail
 */
export function tellParent(type, detail) {
  if (framed()) parent.postMessage({ commingle: type, ...detail }, '*');
}

/** Calls `leave` when the parent page asks for it. */
export function obeyParent(leave) {
  addEventListener('message', ({ source, data }) => {
    if (framed() && source === parent && data?.commingle === 'leave') leave();
  });
}

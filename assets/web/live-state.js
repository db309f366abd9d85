// live-state.js: the states of /live/{room} as pure functions: what the server's answer means, and what people read.

/**
 * The state that an answer to the audio playlist means.
 * @param {number} status
 * @param {string} playlist  the body of a 200
 * @param {{ hasPlayed: boolean, hasToken: boolean }} page
 */
export function verdict(status, playlist, { hasPlayed, hasToken }) {
  if (status === 200) return /^#EXT-X-ENDLIST/m.test(playlist) ? 'ended' : 'live';
  if (status === 400) return 'misnamed';
  if (status === 401 || status === 403) {
    // Without a token nobody can tell a private broadcast from one that has not begun.
    if (hasToken) return 'denied';
    return hasPlayed ? 'ended' : 'waiting';
  }
  if (status === 404) return hasPlayed ? 'ended' : 'waiting';
  if (status === 503) return 'waiting';
  return 'unreachable';
}

/** The texts of a state: a headline with advice, or a banner above the last picture, and a note below. */
export function advise(state, { hasPlayed, hasToken, audioOnly }) {
  const texts = { headline: '', advice: '', banner: '', note: '' };
  switch (state) {
    case 'connecting':
      return { ...texts, headline: 'Connecting…' };
    case 'waiting':
      return {
        ...texts,
        headline: 'The broadcast has not begun',
        advice: hasToken
          ? 'This page begins to play by itself.'
          : 'This page begins to play by itself. If the broadcast is private, open the link of your invitation.',
      };
    case 'live':
      return { ...texts, note: audioOnly ? 'Audio only: this uses little data.' : '' };
    case 'buffering':
      return { ...texts, banner: 'Loading…' };
    case 'blocked':
      return { ...texts, headline: 'Ready', advice: 'Your browser plays sound only after a click.' };
    case 'ended':
      return {
        ...texts,
        headline: 'The broadcast has ended',
        advice: 'If it begins again, this page plays it by itself.',
      };
    case 'unreachable':
      return hasPlayed
        ? { ...texts, banner: 'The server cannot be reached. Trying again…' }
        : {
            ...texts,
            headline: 'The server cannot be reached',
            advice: 'Check your network. This page tries again by itself.',
          };
    case 'denied':
      return {
        ...texts,
        headline: 'This link is not valid any more',
        advice: 'Ask the person who invited you for a new link.',
      };
    case 'misnamed':
      return {
        ...texts,
        headline: 'There is no such room',
        advice: 'The name of a room has letters, digits, - and _. Check the address.',
      };
    default:
      throw new Error(`unknown state ${state}`);
  }
}

/** Milliseconds before the next question. `random` (0 to 1) spreads the questions of many viewers. */
export function nextTry(state, tries, random) {
  const least = state === 'unreachable' ? 1_000 : 2_000;
  return Math.min(10_000, least * 1.3 ** tries) * (0.75 + random / 2);
}

/** The link to share: this page with these credentials and nothing else. */
export function linkTo({ origin, pathname }, credentials) {
  return origin + pathname + credentials;
}

// live-state.js: the states of /live/{room} as pure functions: what the server's answer means, and what people read.

import { t } from './texts.js';

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
      return { ...texts, headline: t('live.connecting') };
    case 'waiting':
      return {
        ...texts,
        headline: t('live.not_begun'),
        advice: t(hasToken ? 'live.plays_itself' : 'live.plays_itself_or_private'),
      };
    case 'live':
      return { ...texts, note: audioOnly ? t('live.little_data') : '' };
    case 'buffering':
      return { ...texts, banner: t('live.loading') };
    case 'blocked':
      return { ...texts, headline: t('live.ready'), advice: t('live.click_for_sound') };
    case 'ended':
      return {
        ...texts,
        headline: t('air.live_over'),
        advice: t('live.may_begin_again'),
      };
    case 'unreachable':
      return hasPlayed
        ? { ...texts, banner: t('call.unreachable') }
        : {
            ...texts,
            headline: t('live.unreachable'),
            advice: t('live.check_network'),
          };
    case 'denied':
      return {
        ...texts,
        headline: t('live.denied'),
        advice: t('live.ask_for_link'),
      };
    case 'misnamed':
      return {
        ...texts,
        headline: t('live.no_room'),
        advice: t('live.check_address'),
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

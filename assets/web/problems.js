// problems.js: the refusals of the server in plain words, as a pure function. Input: a JoinError and what was
// attempted. Output: a text and up to two helpful buttons. Does not know the page: app.js performs the actions.

import { t } from './texts.js';

/** The buttons of problems. */
export const ACTIONS = ['ask', 'invitation', 'watch', 'room', 'retry'];

/** The label of a button. */
export const actionLabel = (action) => t(`problem.action_${action}`);

/** Actions, and the field that is wrong, by `code` of the problem document (docs/api.md); the text is `problem.CODE`. */
const BY_CODE = {
  needs_token: [['ask'], 'invitation'],
  token_expired: [['ask'], 'invitation'],
  invalid_token: [['ask'], 'invitation'],
  wrong_room: [['ask', 'room'], 'invitation'],
  viewer_may_not_send: [['watch', 'ask']],
  wrong_role: [['ask']],
  forbidden: [['ask', 'room']],
  bad_room_name: [['room'], 'room'],
  no_room: [['retry', 'room'], 'room'],
  room_locked: [['retry', 'room']],
  room_full: [['watch', 'retry']],
  watchers_full: [['retry', 'room']],
  kept_out: [['room']],
  not_open_yet: [['retry', 'room']],
  room_over: [['room']],
  proxy: [['retry']],
  origin: [['retry']],
  in_lobby: [[]],
  muted_by_moderator: [[]],
  not_allowed_to_speak: [[]],
  not_allowed_to_share: [[]],
  not_allowed_to_chat: [[]],
  not_allowed_to_unmute: [[]],
  internal_error: [['retry']],
  no_publisher: [['retry']],
  too_many_joins: [['retry']],
  too_many_requests: [['retry']],
  overloaded: [['retry']],
  draining: [['retry']],
  offer: [['retry']],
  unreachable: [['retry']],
};

/** The codes whose text says when, if the server says so. */
const LATER = ['kept_out', 'not_open_yet'];

/** The code of a status without a known code: proxies have their own error pages. */
function codeOf(status, { hasToken }) {
  if (status === 0) return 'unreachable';
  if (status === 401) return hasToken ? 'invalid_token' : 'needs_token';
  if (status === 403) return 'forbidden';
  if (status === 429) return 'too_many_requests';
  return status === 408 || status >= 500 ? 'overloaded' : '';
}

/** A delay in ms in words. */
function after(wait) {
  const seconds = Math.ceil(wait / 1000);
  if (seconds <= 1) return t('problem.in_a_moment');
  if (seconds < 120) return t('problem.in_seconds', { count: seconds });
  const minutes = Math.ceil(seconds / 60);
  if (minutes < 120) return t('problem.in_minutes', { count: minutes });
  return t('problem.in_hours', { count: Math.ceil(minutes / 60) });
}

/**
 * @param {{ message: string, status?: number, problem?: { code?: string }, retryAfter?: number }} error
 * @param {{ room?: string, watching?: boolean, hasToken?: boolean }} attempt
 * @returns {{ text: string, actions: string[], field?: string }}
 */
export function explain(error, { room = '', watching = false, hasToken = false } = {}) {
  const given = error.problem?.code;
  let code = Object.hasOwn(BY_CODE, given ?? '') ? given : codeOf(error.status, { hasToken });
  if (!code) return { text: error.message, actions: error.status === undefined ? [] : ['retry'] };
  if (code === 'room_full' && watching) code = 'watchers_full';
  const [actions, field] = BY_CODE[code];
  // Without a time there is nothing to wait for in particular.
  if (LATER.includes(code) && !error.retryAfter) code = `${code}_now`;
  return { text: t(`problem.${code}`, { room, when: after(error.retryAfter ?? 0) }), actions, field };
}

/** The message with which a guest asks for a link. */
export const request = (room, link) => `${t('problem.request', { room })} ${link}`;

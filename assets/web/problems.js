// problems.js: the refusals of the server in plain words, as a pure function. Input: a JoinError and what was
// attempted. Output: a text and up to two helpful buttons. Does not know the page: app.js performs the actions.

/** The labels of the buttons, by action. */
export const ACTIONS = {
  ask: 'Ask for a new link',
  invitation: 'Enter an invitation',
  watch: 'Watch instead',
  room: 'Choose another room',
  retry: 'Try again',
};

const seconds = (ms) => (ms > 1000 ? ` in ${Math.ceil(ms / 1000)} seconds` : ' in a moment');

/** Text, actions, and the field that is wrong, by `code` of the problem document (docs/api.md). */
const BY_CODE = {
  needs_token: ({ room }) => [
    `The room “${room}” is open to invited people only. Paste your invitation, or ask for one.`,
    ['ask'],
    'invitation',
  ],
  token_expired: () => ['Your invitation has expired. Ask for a new link.', ['ask'], 'invitation'],
  invalid_token: () => [
    'This invitation is not valid. It may have been copied incompletely. Paste it again, or ask for a new link.',
    ['ask'],
    'invitation',
  ],
  wrong_room: ({ room }) => [
    `Your invitation is for another room than “${room}”. Ask for a link to this one, or choose the other room.`,
    ['ask', 'room'],
    'invitation',
  ],
  viewer_may_not_send: () => [
    'Your invitation is for watching only. You can watch, or ask for an invitation to take part.',
    ['watch', 'ask'],
  ],
  wrong_role: () => ['Your invitation does not allow this. Ask for another one.', ['ask']],
  forbidden: ({ room }) => [`You may not join “${room}”. Ask the host for an invitation.`, ['ask', 'room']],
  bad_room_name: () => ['A room name has letters, digits, - and _. Choose another name.', ['room'], 'room'],
  no_room: ({ room }) => [
    `There is no room “${room}” now. Check the name, or ask the host whether the call has begun.`,
    ['retry', 'room'],
    'room',
  ],
  room_locked: ({ room }) => [`The room “${room}” is locked. Ask the host to let you in.`, ['retry', 'room']],
  room_full: ({ room, watching }) => [
    watching ? `No more people can watch “${room}” now.` : `The room “${room}” is full.`,
    watching ? ['retry', 'room'] : ['watch', 'retry'],
  ],
  internal_error: () => ['Something went wrong on the server. Try again.', ['retry']],
  no_publisher: () => ['Nobody is sending yet. Try again when the call has begun.', ['retry']],
  too_many_joins: ({ wait }) => [`Too many people are joining at once. Try again${seconds(wait)}.`, ['retry']],
  too_many_requests: ({ wait }) => [`There were too many attempts from here. Try again${seconds(wait)}.`, ['retry']],
  overloaded: ({ wait }) => [`The server is busy. Try again${seconds(wait)}.`, ['retry']],
  draining: ({ wait }) => [`The server is being restarted. Try again${seconds(wait)}.`, ['retry']],
  offer: () => ['This browser cannot make calls here. Update it, or use Chrome, Edge, Firefox or Safari.', ['retry']],
};

/** What a status says if there is no known code: proxies have their own error pages. */
function byStatus(status, { hasToken }) {
  if (status === 0) return ['The server cannot be reached. Check your network connection.', ['retry']];
  if (status === 401) return BY_CODE[hasToken ? 'invalid_token' : 'needs_token'];
  if (status === 403) return BY_CODE.forbidden;
  if (status === 429) return BY_CODE.too_many_requests;
  if (status === 408 || status >= 500) return BY_CODE.overloaded;
  return null;
}

/**
 * @param {{ message: string, status?: number, problem?: { code?: string }, retryAfter?: number }} error
 * @param {{ room?: string, watching?: boolean, hasToken?: boolean }} attempt
 * @returns {{ text: string, actions: string[], field?: string }}
 */
export function explain(error, { room = '', watching = false, hasToken = false } = {}) {
  const known = BY_CODE[error.problem?.code] ?? byStatus(error.status, { hasToken });
  if (!known) return { text: error.message, actions: error.status === undefined ? [] : ['retry'] };
  const about = { room, watching, wait: error.retryAfter ?? 0 };
  const [text, actions, field] = typeof known === 'function' ? known(about) : known;
  return { text, actions, field };
}

/** The message with which a guest asks for a link. */
export const request = (room, link) => `Could you send me a new invitation to the call “${room}”? ${link}`;

// moderation.js: what can be done about a person in the call, by whom, and the requests for it (docs/api.md,
// "Moderation"). Pure: input is documents of the room; output is names of actions, and requests.

const RANK = ['viewer', 'participant', 'moderator', 'operator'];

/** Whether a role is that of a moderator. */
export const isModerator = (role) => role === 'moderator' || role === 'operator';

/** The seconds for which a removed person is kept out. */
export const KEEP_OUT = [0, 600, 3600, 86_400];

const sends = ({ sends: list }, kind) => !Array.isArray(list) || list.some((source) => source.kind === kind);

/** Whether nobody hears a participant. */
export const isSilent = (person) =>
  person.audio_muted === true || Boolean(person.muted_by) || !sends(person, 'microphone');

const pinnedForAll = (room, id) => room.layout?.pinned?.includes(id) ?? false;

/** Whether the room shows this participant alone. */
export const inSpotlight = (room, id) => room.layout?.kind === 'spotlight' && pinnedForAll(room, id);

/**
 * The actions of the menu of a person, in groups.
 * @param {{ room: any, me: any, person: any, moderates: boolean, pinned: string | null }} about `pinned`: by the user
 * @returns {string[][]}
 */
export function actionsFor({ room, me, person, moderates, pinned }) {
  const self = person.id === me?.id;
  const shown = person.role !== 'viewer';
  const own = [
    shown && !self && (pinned === person.id ? 'unpin' : 'pin'),
    !self && 'write',
    self && (person.hand_raised_at ? 'lower' : 'raise'),
    (self || moderates) && 'rename',
  ];
  if (!moderates) return [own.filter(Boolean)];
  const camera = sends(person, 'camera') && !person.video_muted && !person.video_stopped_by;
  const devices = [
    !self && shown && !isSilent(person) && 'mute',
    !self && shown && isSilent(person) && 'ask',
    !self && person.muted_by && 'release',
    !self && shown && camera && 'stop_camera',
    !self && person.video_stopped_by && 'release_camera',
    !self && person.hand_raised_at && 'lower',
    person.speaker_allowed === false && 'allow',
    !self && person.speaker_allowed === true && !isModerator(person.role) && 'disallow',
  ];
  const all = [
    shown && (pinnedForAll(room, person.id) ? 'unpin_all' : 'pin_all'),
    shown && (inSpotlight(room, person.id) ? 'unspotlight' : 'spotlight'),
  ];
  const mayChange = !self && RANK.indexOf(person.role) <= RANK.indexOf(me?.role ?? 'participant');
  const roles = [
    mayChange && person.role !== 'moderator' && person.role !== 'operator' && isModerator(me?.role) && 'make_moderator',
    mayChange && isModerator(person.role) && 'make_participant',
  ];
  const groups = [own, devices, all, roles, [!self && 'remove']];
  return groups.map((group) => group.filter(Boolean)).filter((group) => group.length);
}

/** The layout of the room after one of the actions `pin_all`, `unpin_all`, `spotlight`, `unspotlight`. */
export function layoutAfter(layout, action, id) {
  const { tiles: _tiles, pinned = [], ...rest } = layout ?? { kind: 'auto' };
  if (action === 'pin_all') return { ...rest, pinned: [...pinned.filter((one) => one !== id), id] };
  if (action === 'unpin_all') return { ...rest, pinned: pinned.filter((one) => one !== id) };
  if (action === 'spotlight') return { ...rest, kind: 'spotlight', pinned: [id] };
  return { ...rest, kind: 'auto', pinned: [] };
}

/**
 * The request of an action about a participant, for `session.call`; null for those that need more than a request.
 * @param {string} action
 * @param {string} id
 * @param {any} room
 */
export function requestFor(action, id, room) {
  const path = `/v1/rooms/{room}/participants/${id}`;
  const patch = (body) => ({ path, method: 'PATCH', body });
  const layout = () => {
    const body = { layout: layoutAfter(room.layout, action, id) };
    return { path: '/v1/rooms/{room}', method: 'PATCH', body };
  };
  const requests = {
    mute: () => patch({ audio_muted: true }),
    release: () => patch({ audio_muted: false }),
    stop_camera: () => patch({ video_muted: true }),
    release_camera: () => patch({ video_muted: false }),
    allow: () => patch({ speaker_allowed: true }),
    disallow: () => patch({ speaker_allowed: false }),
    make_moderator: () => patch({ role: 'moderator' }),
    make_participant: () => patch({ role: 'participant' }),
    ask: () => ({ path: `${path}/ask_unmute`, method: 'POST' }),
    admit: () => ({ path: `${path}/admit`, method: 'POST' }),
    refuse: () => ({ path, method: 'DELETE' }),
    pin_all: layout,
    unpin_all: layout,
    spotlight: layout,
    unspotlight: layout,
  };
  return requests[action]?.() ?? null;
}

/** The request that removes a participant and keeps it out for `seconds`. */
export const removal = (id, seconds) => ({
  path: `/v1/rooms/{room}/participants/${id}${seconds > 0 ? `?keep_out=${seconds}` : ''}`,
  method: 'DELETE',
});

/**
 * What a participant is told when its own document changes, as keys of texts.
 * @param {any} before null before the first document
 * @param {any} after
 * @returns {string[]}
 */
export function changesOfSelf(before, after) {
  if (!before || !after) return [];
  const told = [];
  if (before.state === 'lobby' && after.state === 'in') told.push('notice.admitted');
  const ranks = [before, after].map(({ role }) => RANK.indexOf(role));
  if (ranks[1] !== ranks[0]) told.push(`notice.${ranks[1] > ranks[0] ? 'promoted' : 'demoted'}_${after.role}`);
  if (before.speaker_allowed === false && after.speaker_allowed === true) told.push('notice.may_speak');
  if (before.speaker_allowed === true && after.speaker_allowed === false) told.push('notice.may_not_speak');
  return told;
}

/**
 * Why the user may not turn on a device or share, as the key of a text; null if it is permitted.
 * @param {'audio' | 'video' | 'screen'} kind
 * @param {{ self: any, room: any, moderates: boolean }} about
 */
export function refusalOf(kind, { self, room, moderates }) {
  if (!self) return null;
  if (kind === 'audio' && self.muted_by) return 'notice.muted_stays';
  if (kind === 'video' && self.video_stopped_by) return 'notice.camera_stays';
  if (moderates) return null;
  if (kind === 'screen') return room.who_may?.share === 'moderators' ? 'notice.may_not_share' : null;
  if (self.speaker_allowed === false) return 'notice.listens';
  if (kind === 'audio' && room.who_may?.unmute === 'moderators') return 'notice.may_not_unmute';
  return null;
}

/** A timestamp as the value of a field for a local date and time. */
export function localValue(at) {
  if (!at) return '';
  const date = new Date(at);
  const local = new Date(date.getTime() - date.getTimezoneOffset() * 60_000);
  return local.toISOString().slice(0, 16);
}

/**
 * The change of the room that a field makes, as the body of a PATCH.
 * @param {{ name: string, type: string, checked: boolean, value: string }} field
 */
export function changeOf({ name, type, checked, value }) {
  const text = value.trim();
  if (type === 'checkbox') return { [name]: checked };
  if (type === 'radio') return { who_may: { [name]: value } };
  if (type === 'number') return { [name]: text ? Number(text) : null };
  if (type === 'datetime-local') return { [name]: text ? new Date(text).toISOString() : null };
  return { [name]: text || null };
}

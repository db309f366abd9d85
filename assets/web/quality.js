// quality.js: the quality of the connection and of the received video, in words, as pure functions of the session's
// state, the participant's document and the statistics.

const LOSS = { fair: 0.03, poor: 0.1 }; // share of packets
const ROUND_TRIP = { fair: 400, poor: 1000 }; // ms
const RANK = ['lost', 'poor', 'fair', 'good'];

const CAUSES = {
  loss: 'Your connection loses packets',
  delay: 'Your connection is slow',
  receiver: 'Your device cannot receive more',
};
const EFFECTS = {
  medium: 'so the picture is less sharp',
  low: 'so the picture is small',
  slides: 'so you get one picture per second',
  audio: 'so you get audio only',
};
const CHOSEN = {
  slides: 'You chose one picture per second',
  audio: 'You chose audio only',
};

/** Whether the tier has no moving picture: `slides` and `audio`. */
export const isStill = (tier) => tier === 'slides' || tier === 'audio';

/** The tier that a participant receives now, also before the room lists it, when `wanted` is the requested one. */
export const tierOf = (self, wanted) => self?.receives?.tier ?? (isStill(wanted) ? wanted : 'high');

/** Whether the link of a participant carries no more than a small picture, as its tile shows by a sign. */
export const hasPoorLink = ({ tier, receives }) =>
  (tier === undefined || tier === 'auto') &&
  ['low', 'slides', 'audio'].includes(receives?.tier) &&
  ['loss', 'delay'].includes(receives?.limit);

/** Why there is no moving picture, as a title and a sentence; null if there is one. */
export function stillNote(tier, receives, self) {
  if (!isStill(tier)) return null;
  const chosen = self ? self.tier !== 'auto' && self.tier !== undefined : true;
  const title = tier === 'audio' ? 'Audio only' : 'One picture per second';
  const heard = self && self.role !== 'viewer' ? ' Others still see and hear you.' : '';
  if (chosen) return { title, text: `You chose this for the call.${heard}` };
  const cause = CAUSES[receives?.limit] ?? CAUSES.delay;
  const back = tier === 'audio' ? 'The picture' : 'Moving video';
  return { title, text: `${cause}. ${back} returns by itself when there is room for it.` };
}

/**
 * The quality of the connection: `level` is `good`, `fair`, `poor` or `lost`; `reason` is a sentence.
 * `receives` and `tier` are of the own participant document, `audioReduced` of the room's, `stats` of the session.
 */
export function linkQuality({ state, unreachable = false, direct = false, tier, receives, audioReduced, stats }) {
  if (state !== 'connected') {
    const doing = state === 'connecting' ? 'Connecting' : 'Reconnecting';
    return { level: 'lost', reason: unreachable ? 'The server cannot be reached.' : `${doing}.` };
  }
  const found = []; // [level, reason], the worst counts
  const now = receives?.tier;
  const adapts = tier === 'auto' || tier === undefined;
  if (!direct && adapts && receives?.limit && EFFECTS[now])
    found.push([now === 'medium' ? 'fair' : 'poor', `${CAUSES[receives.limit] ?? CAUSES.delay}, ${EFFECTS[now]}.`]);
  if (!direct && audioReduced) {
    const most = audioReduced.talkers_max;
    const effect = most ? `only the ${most} loudest people are heard` : 'the sound is a little less clear';
    found.push(['fair', `The server is busy, so ${effect}.`]);
  }
  const loss = stats?.loss ?? 0;
  if (loss >= LOSS.fair)
    found.push([loss >= LOSS.poor ? 'poor' : 'fair', `${CAUSES.loss}: ${Math.round(loss * 100)} % are missing.`]);
  const rtt = stats?.rtt ?? 0;
  if (rtt >= ROUND_TRIP.fair)
    found.push([
      rtt >= ROUND_TRIP.poor ? 'poor' : 'fair',
      `Your connection has a long delay: ${(rtt / 1000).toFixed(1)} s for a round trip.`,
    ]);
  const [level, reason] = found.toSorted((a, b) => RANK.indexOf(a[0]) - RANK.indexOf(b[0]))[0] ?? ['good', ''];
  if (reason) return { level, reason };
  const fine = 'Your connection is good.';
  return { level, reason: !adapts && CHOSEN[now] ? `${fine} ${CHOSEN[now]}.` : fine };
}

/** The name of the level, for the label of its icon. */
export const QUALITY_LABELS = {
  good: 'Connection: good',
  fair: 'Connection: fair',
  poor: 'Connection: poor',
  lost: 'Connection: interrupted',
};

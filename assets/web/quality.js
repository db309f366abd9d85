// quality.js: the quality of the connection and of the received video, in words, as pure functions of the session's
// state, the participant's document and the statistics.

import { decimal, t } from './texts.js';

const LOSS = { fair: 0.03, poor: 0.1 }; // share of packets
const ROUND_TRIP = { fair: 400, poor: 1000 }; // ms
const RANK = ['lost', 'poor', 'fair', 'good'];

const CAUSES = ['loss', 'delay', 'receiver'];
const LIMITED = ['medium', 'low', 'slides', 'audio'];

/** Why the server sends less, as the beginning of a sentence. */
const causeOf = (limit) => t(`quality.${CAUSES.includes(limit) ? limit : 'delay'}`);

/** Whether the tier has no moving picture: `slides` and `audio`. */
export const isStill = (tier) => tier === 'slides' || tier === 'audio';

/** The tier that a participant receives now, also before the room lists it, when `wanted` is the requested one. */
export const tierOf = (self, wanted) => self?.receives?.tier ?? (isStill(wanted) ? wanted : 'high');

/**
 * The link of another participant, as far as its document tells: `poor` if it carries no more than a small picture, as
 * its tile shows by a sign; `fair` if the picture is less sharp.
 */
export function linkOf({ tier, receives }) {
  const adapts = tier === undefined || tier === 'auto';
  if (!adapts || !['loss', 'delay'].includes(receives?.limit)) return 'good';
  if (['low', 'slides', 'audio'].includes(receives.tier)) return 'poor';
  return receives.tier === 'medium' ? 'fair' : 'good';
}

/** Why there is no moving picture, as a title and a sentence; null if there is one. */
export function stillNote(tier, receives, self) {
  if (!isStill(tier)) return null;
  const chosen = self ? self.tier !== 'auto' && self.tier !== undefined : true;
  const title = t(tier === 'audio' ? 'quality.audio_only' : 'quality.slides');
  const heard = self && self.role !== 'viewer' ? ` ${t('quality.still_heard')}` : '';
  if (chosen) return { title, text: `${t('quality.chosen')}${heard}` };
  const returns = tier === 'audio' ? 'quality.picture_returns' : 'quality.video_returns';
  return { title, text: t(returns, { cause: causeOf(receives?.limit) }) };
}

/**
 * The quality of the connection: `level` is `good`, `fair`, `poor` or `lost`; `reason` is a sentence.
 * `receives` and `tier` are of the own participant document, `audioReduced` of the room's, `stats` of the session.
 */
export function linkQuality({ state, unreachable = false, direct = false, tier, receives, audioReduced, stats }) {
  if (state !== 'connected') {
    const doing = state === 'connecting' ? 'quality.connecting' : 'quality.reconnecting';
    return { level: 'lost', reason: t(unreachable ? 'quality.unreachable' : doing) };
  }
  const found = []; // [level, reason], the worst counts
  const now = receives?.tier;
  const adapts = tier === 'auto' || tier === undefined;
  if (!direct && adapts && receives?.limit && LIMITED.includes(now))
    found.push([
      now === 'medium' ? 'fair' : 'poor',
      t(`quality.${now}_because`, { cause: causeOf(receives.limit) }),
    ]);
  if (!direct && audioReduced) {
    const most = audioReduced.talkers_max;
    found.push(['fair', most ? t('quality.talkers', { count: most }) : t('quality.less_clear')]);
  }
  const loss = stats?.loss ?? 0;
  if (loss >= LOSS.fair)
    found.push([
      loss >= LOSS.poor ? 'poor' : 'fair',
      t('quality.packets', { cause: causeOf('loss'), percent: Math.round(loss * 100) }),
    ]);
  const rtt = stats?.rtt ?? 0;
  if (rtt >= ROUND_TRIP.fair)
    found.push([
      rtt >= ROUND_TRIP.poor ? 'poor' : 'fair',
      t('quality.long_delay', { seconds: decimal(rtt / 1000, 1) }),
    ]);
  const [level, reason] = found.toSorted((a, b) => RANK.indexOf(a[0]) - RANK.indexOf(b[0]))[0] ?? ['good', ''];
  if (reason) return { level, reason };
  const fine = t('quality.fine');
  return { level, reason: !adapts && isStill(now) ? `${fine} ${t(`quality.chose_${now}`)}` : fine };
}

/** The name of the level, for the label of its icon. */
export const qualityLabel = (level) => t(`quality.${level}`);

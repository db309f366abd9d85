// figures.js: what is received and sent, in figures and words. Owns the line of figures, their list, and the sign of
// the quality. Input: a session of commingle.js and its latest statistics.

import { isStill, linkQuality, qualityLabel } from './quality.js';
import { decimal, dotted, t } from './texts.js';
import { $, el } from './ui.js';

const rate = (kbps) => (kbps >= 1000 ? `${decimal(kbps / 1000, 1)} Mbit/s` : `${decimal(kbps)} kbit/s`);
const frames = (fps) => t('call.fps', { fps });
const quality = (receives) =>
  receives?.video &&
  [t(`call.tier_${receives.tier}`), receives.limit && t(`call.limit_${receives.limit}`)].filter(Boolean).join(': ');

/**
 * Draws the figures: the line beside the controls, and the list if there are new ones. `last` are the latest
 * statistics, null without any; `tier` is the received one.
 */
export function drawStats(session, last, tier, stats = null) {
  const people = session.room.participants.length;
  const crowd = people && t('call.crowd', { count: people });
  const s = session.state === 'connected' ? last : null;
  const seen = s && [
    tier === 'audio' ? t('quality.audio_only') : s.streams && t('call.streams', { count: s.streams }),
    rate(s.kbpsDown),
    !isStill(tier) && frames(s.fps),
  ];
  $('stats').textContent = dotted([...(seen || []), crowd]);
  if (!stats) return;
  const size = (width, height) => `${stats[width]}×${stats[height]}`;
  const facts = [
    ['call.receiving', t('call.receiving_streams', { streams: s?.streams || 0 })],
    ['call.down', rate(stats.kbpsDown)],
    ['call.up', rate(stats.kbpsUp)],
    ['call.video', stats.width && `${size('width', 'height')} · ${frames(stats.fps)} · ${stats.codec}`],
    ['call.quality', quality(session.self?.receives)],
    ['call.sent', stats.sentWidth && size('sentWidth', 'sentHeight')],
    ['call.round_trip', stats.rtt !== null && `${decimal(stats.rtt)} ms`],
    ['call.lost', `${decimal(stats.packetsLost)} · ${decimal(stats.freezes)}`],
  ];
  $('received').replaceChildren(
    ...facts.filter(([, value]) => value).flatMap(([key, value]) => [el('dt', {}, t(key)), el('dd', {}, value)]),
  );
}

/** The quality of the connection; `session` is null before the answer of the server. */
export const linkNow = (session, last) =>
  linkQuality({
    state: session?.state ?? 'connecting',
    unreachable: session?.unreachable,
    direct: session?.direct,
    tier: session?.self?.tier,
    receives: session?.self?.receives,
    audioReduced: session?.room?.audio_reduced,
    stats: session?.state === 'connected' ? last : null,
  });

/** Draws the sign of the quality of the connection. */
export function drawSignal(session, last) {
  const { level, reason } = linkNow(session, last);
  const button = $('signal');
  const label = qualityLabel(level);
  if (button.dataset.level !== level) button.dataset.level = level;
  if (button.dataset.tip !== reason) button.dataset.tip = reason;
  const said = `${label}. ${reason}`;
  if (button.getAttribute('aria-label') !== said) button.setAttribute('aria-label', said);
}

// air.js: texts about recordings and broadcasts, as pure functions of the room document.
// No network, no clock, no DOM: time is an argument.

import { decimal, duration, t } from './texts.js';

const RUNNING = ['starting', 'live', 'stalled', 'reconnecting', 'finishing'];

/** Whether a recording, broadcast or input is running. */
export const isRunning = (output) => RUNNING.includes(output.state);

/** The running ones of a list. */
export const running = (list) => (list ?? []).filter(isRunning);

/** `0:07`, `12:34`, `1:02:03`. */
export function clock(seconds) {
  const whole = Math.max(0, Math.floor(Number.isFinite(seconds) ? seconds : 0));
  const two = (n) => String(n).padStart(2, '0');
  const [h, m, s] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  return h ? `${h}:${two(m)}:${two(s)}` : `${m}:${two(s)}`;
}

/** The same for screen readers: `1 hour 2 minutes`, `12 minutes`, `7 seconds`. */
export function spoken(seconds) {
  const whole = Math.max(0, Math.floor(Number.isFinite(seconds) ? seconds : 0));
  const [h, m] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60];
  if (h || m) return [h && duration(h, 'hour'), m && duration(m, 'minute')].filter(Boolean).join(' ');
  return duration(whole, 'second');
}

/** `940 B`, `4.2 MB`, `1.3 GB`. */
export function size(bytes) {
  if (bytes < 1000) return `${decimal(Math.max(0, bytes))} B`;
  const units = ['kB', 'MB', 'GB', 'TB'];
  let value = bytes / 1000;
  let unit = 0;
  while (value >= 999.5 && unit < units.length - 1) [value, unit] = [value / 1000, unit + 1];
  return `${decimal(value, value < 9.95 ? 1 : 0)} ${units[unit]}`;
}

/** `480 kbit/s`, `1.5 Mbit/s`. */
export const rate = (bits) =>
  bits >= 999_500 ? `${decimal(bits / 1e6, 1)} Mbit/s` : `${decimal(bits / 1000)} kbit/s`;

/** The duration of an output in seconds, if its document had `duration` at `seenAt`; `seenAt` and `now` in ms. */
export function elapsed(output, seenAt, now) {
  return (output.duration ?? 0) + (output.state === 'live' ? Math.max(0, now - seenAt) / 1000 : 0);
}

/** The badges to show, each with the output that has run longest. */
export function badges(room) {
  const longest = (list) => running(list).toSorted((a, b) => (b.duration ?? 0) - (a.duration ?? 0))[0];
  const [recording, broadcast] = [longest(room.recordings), longest(room.broadcasts)];
  return [
    ...(recording ? [{ kind: 'rec', label: t('air.rec'), says: t('air.recorded'), output: recording }] : []),
    ...(broadcast ? [{ kind: 'live', label: t('air.live'), says: t('air.broadcast'), output: broadcast }] : []),
  ];
}

/** The announcements when badges change; `before` is null after a join. */
export function changes(before, now) {
  const [had, has] = [before ?? [], now].map((list) => list.map((badge) => badge.kind));
  const begun = now.filter((badge) => !had.includes(badge.kind)).map((badge) => badge.says);
  return [...begun, ...had.filter((kind) => !has.includes(kind)).map((kind) => t(`air.${kind}_over`))];
}

const FORMATS = { mp4: 'MP4', webm: 'WebM', mkv: 'Matroska' };

/** The name of a format, by the extension of its files. */
const formatOf = (name) => (name === 'ogg' ? t('quality.audio_only') : (FORMATS[name] ?? name));

/** The title of an output. */
export function title(output, kind) {
  if (kind === 'recording')
    return output.kind === 'tracks'
      ? t('air.tracks')
      : t('air.recording', { format: formatOf(output.format) });
  if (kind === 'input') return output.name || output.url;
  return output.kind === 'hls' ? t('air.hls') : t('air.to_service', { kind: (output.kind ?? '').toUpperCase() });
}

const STATES = ['starting', 'stalled', 'reconnecting', 'finishing', 'finished', 'failed'];

/** The state of an output, as short facts; `now` and `seenAt` as for `elapsed`. */
export function facts(output, kind, seenAt, now) {
  const live = output.state === 'live';
  const list = [STATES.includes(output.state) && t(`air.${output.state}`)];
  if (output.duration !== undefined && (live || output.state === 'finished'))
    list.push(clock(elapsed(output, seenAt, now)));
  if (kind === 'recording' && output.bytes) list.push(size(output.bytes));
  if (output.size && live) list.push(`${output.size.width}×${output.size.height}`);
  if (kind !== 'recording' && live && output.bitrate) list.push(rate(output.bitrate));
  if (output.reconnects) list.push(t('air.reconnects', { count: output.reconnects }));
  if (output.dropped) list.push(t('air.dropped', { count: output.dropped }));
  return list.filter(Boolean);
}

const FILE_STATES = ['recording', 'failed', 'mended', 'broken'];

/** A recorded file, as short facts. */
export function fileFacts(file) {
  const { sent_bytes: sent, failures, state: upload } = file.upload ?? {};
  const percent = sent && file.bytes ? Math.floor((100 * sent) / file.bytes) : 0;
  const uploads = {
    waiting: () => t(failures ? 'air.upload_again' : 'air.upload_waits'),
    uploading: () => (percent ? t('air.uploading_percent', { percent }) : t('air.uploading')),
    done: () => t('air.uploaded'),
  };
  return [
    file.duration !== undefined && file.state !== 'recording' && clock(file.duration),
    size(file.bytes),
    formatOf(file.file.split('.').at(-1)),
    FILE_STATES.includes(file.state) && t(`air.file_${file.state}`),
    uploads[upload]?.(),
  ].filter(Boolean);
}

/** Whether a video element can probably play the file. */
export const playable = (file) => Boolean(file.url) && file.state !== 'broken' && /\.(mp4|webm|ogg)$/.test(file.file);

const SCHEMES = /^(rtmps?|srt|whip\+https?|rtp):\/\/./i;

/** What is wrong with the destination of a broadcast; null if it is valid. */
export function wrongTarget(url) {
  if (!url) return t('air.paste_target');
  return SCHEMES.test(url) ? null : t('air.wrong_target');
}

/** What is wrong with the source of an input; null if it is valid. */
export function wrongSource(url) {
  if (!url) return t('air.paste_source');
  const known = /^((rtmps?|srt|rtsps?|https?|whep\+https?):\/\/.|file:[^/])/i;
  return known.test(url) ? null : t('air.wrong_source');
}

// devices.js: camera and microphone before the call: permission, selection, preview, level.
// Owns the tracks until take(). Never throws: a missing device is a state to display.

import { memory } from './memory.js';
import { t } from './texts.js';

const SHAPE = {
  audio: { echoCancellation: true, noiseSuppression: true, autoGainControl: true },
  video: { width: { ideal: 1280 }, height: { ideal: 720 }, frameRate: { ideal: 30 } },
};
const REASONS = { NotAllowedError: 'denied', SecurityError: 'denied', NotReadableError: 'busy', AbortError: 'busy' };
const other = { audio: 'video', video: 'audio' };

/**
 * Emits `change` after every change. `status[kind]` is `asking`, `on`, `off` (switched off by choice),
 * `none` (no such device), `unplugged`, `denied`, `busy` or `insecure` (page not served over https or localhost).
 */
export class Devices extends EventTarget {
  stream = new MediaStream();
  status = { audio: 'asking', video: 'asking' };
  available = { audio: [], video: [] };
  #wanted = { audio: memory.get('mic') !== 'off', video: memory.get('camera') !== 'off' };
  #active = false;

  /** Requests the devices that were on in the last call. */
  async start() {
    this.#active = true;
    if (!navigator.mediaDevices?.getUserMedia) {
      this.status = { audio: 'insecure', video: 'insecure' };
      return this.#changed();
    }
    navigator.mediaDevices.ondevicechange = () => this.#devicesChanged();
    await this.#list();
    const kinds = ['audio', 'video'].filter((kind) => this.#wanted[kind]);
    for (const kind of ['audio', 'video']) this.status[kind] = this.#wanted[kind] ? 'asking' : 'off';
    this.#changed();
    const here = kinds.filter((kind) => this.available[kind].length);
    for (const kind of kinds) if (!here.includes(kind)) this.status[kind] = 'none';
    // One permission request for both; one by one only if that fails.
    if (here.length && !(await this.#open(here)) && here.length > 1) for (const kind of here) await this.#open([kind]);
    await this.#list();
  }

  track(kind) {
    return this.stream.getTracks().find((t) => t.kind === kind && t.readyState === 'live');
  }

  /** Whether the kind can be turned on during the call without renegotiation. */
  may(kind) {
    return ['on', 'off'].includes(this.status[kind]) && (this.available[kind].length > 0 || Boolean(this.track(kind)));
  }

  async toggle(kind) {
    const on = this.status[kind] !== 'on';
    this.#wanted[kind] = on;
    memory.set(kind === 'audio' ? 'mic' : 'camera', on ? 'on' : 'off');
    if (on) return this.#reopen(kind);
    this.#drop(kind);
    this.status[kind] = 'off';
    this.#changed();
  }

  async choose(kind, deviceId) {
    memory.set(`${kind}-device`, deviceId);
    await this.#reopen(kind);
  }

  /** Hands the tracks over to a call. */
  take() {
    const { stream } = this;
    this.stream = new MediaStream();
    this.#active = false;
    return stream;
  }

  /** Releases the devices without a call. */
  stop() {
    for (const track of this.take().getTracks()) track.stop();
  }

  #drop(kind) {
    for (const track of this.stream.getTracks()) {
      if (track.kind !== kind) continue;
      track.stop();
      this.stream.removeTrack(track);
    }
  }

  async #reopen(kind) {
    this.#drop(kind);
    this.status[kind] = navigator.mediaDevices ? 'asking' : 'insecure';
    this.#changed();
    if (navigator.mediaDevices) await this.#open([kind]);
    await this.#list();
  }

  async #open(kinds) {
    const wish = {};
    for (const kind of kinds) {
      const deviceId = memory.get(`${kind}-device`);
      wish[kind] = deviceId ? { ...SHAPE[kind], deviceId: { ideal: deviceId } } : SHAPE[kind];
    }
    try {
      const stream = await navigator.mediaDevices.getUserMedia(wish);
      for (const track of stream.getTracks()) {
        if (!this.#active || !this.#wanted[track.kind]) {
          track.stop();
          continue;
        }
        this.#drop(track.kind);
        this.stream.addTrack(track);
        this.status[track.kind] = 'on';
        track.addEventListener('ended', () => {
          if (!this.stream.getTracks().includes(track)) return;
          this.#drop(track.kind);
          this.status[track.kind] = 'unplugged';
          this.#changed();
        });
      }
      return true;
    } catch (error) {
      for (const kind of kinds) this.status[kind] = REASONS[error.name] ?? 'none';
      return false;
    } finally {
      this.#changed();
    }
  }

  /** Uses a device that was connected where one was missing. */
  async #devicesChanged() {
    await this.#list();
    if (!this.#active) return;
    for (const kind of ['audio', 'video'])
      if (['none', 'unplugged'].includes(this.status[kind]) && this.#wanted[kind] && this.available[kind].length)
        await this.#reopen(kind);
  }

  async #list() {
    const all = (await navigator.mediaDevices?.enumerateDevices().catch(() => [])) ?? [];
    for (const kind of ['audio', 'video']) this.available[kind] = all.filter((d) => d.kind === `${kind}input`);
    this.#changed();
  }

  #changed() {
    this.dispatchEvent(new Event('change'));
  }

  /** A sentence about a missing device, or an empty string. */
  get advice() {
    return adviceFor(this.status);
  }
}

/**
 * Advice about devices that are missing, blocked or in use, or an empty string. `status` is that of Devices.
 * @param {{ audio: string, video: string }} status
 */
export function adviceFor(status) {
  const { audio, video } = status;
  if (audio === 'insecure') return t('devices.insecure');
  if (audio === video && ['denied', 'none'].includes(audio)) return t(`devices.both_${audio}`);
  for (const kind of ['audio', 'video']) {
    const rest = status[other[kind]] === 'on' ? ` ${t(`devices.join_with_${other[kind]}`)}` : '';
    if (['denied', 'busy'].includes(status[kind])) return t(`devices.${status[kind]}_${kind}`) + rest;
    if (status[kind] === 'unplugged') return t(`devices.unplugged_${kind}`);
  }
  return audio === 'none' ? t('devices.silent') : '';
}

/** Advice when a device cannot be turned on during the call, by the name of the browser's error. */
export function adviceInCall(kind, errorName) {
  return t(`devices.call_${REASONS[errorName] ?? 'none'}_${kind}`);
}

/** The devices of the browser by kind: `audioinput`, `videoinput` and `audiooutput`. */
export async function kinds() {
  const all = (await navigator.mediaDevices?.enumerateDevices().catch(() => [])) ?? [];
  const of = (kind) => all.filter((device) => device.kind === kind && device.deviceId);
  return { audioinput: of('audioinput'), videoinput: of('videoinput'), audiooutput: of('audiooutput') };
}

/** Ids and names of devices for a choice; without a name a device is `fallback` with its number. */
export const labelsOf = (devices, fallback) =>
  devices.map(({ deviceId, label }, n) => [
    deviceId,
    label.replace(/ \([0-9a-f]{4}:[0-9a-f]{4}\)$/, '') || `${fallback} ${n + 1}`,
  ]);

/** The side of a phone that a camera does not look to. */
export const otherSide = (track) => (track?.getSettings().facingMode === 'environment' ? 'user' : 'environment');

/** Calls `show(level)` with the loudness of an audio track, 0 to 1, until stopped. */
export class Meter {
  #context = null;
  /** @type {ReturnType<typeof setInterval> | number} */
  #timer = 0;

  constructor(track, show) {
    const Context = globalThis.AudioContext;
    if (!track || !Context) return;
    const context = (this.#context = new Context());
    const analyser = new AnalyserNode(context, { fftSize: 1024 });
    context.createMediaStreamSource(new MediaStream([track])).connect(analyser);
    const samples = new Float32Array(analyser.fftSize);
    let level = 0;
    this.#timer = setInterval(() => {
      analyser.getFloatTimeDomainData(samples);
      const power = samples.reduce((sum, s) => sum + s * s, 0) / samples.length;
      const loud = Math.max(0, Math.min(1, (10 * Math.log10(power + 1e-10) + 55) / 45));
      level = Math.max(loud, level * 0.8);
      show(level);
    }, 66);
    const resume = () => context.state === 'suspended' && context.resume().catch(() => {});
    resume();
    document.addEventListener('pointerdown', resume, { once: true });
  }

  stop() {
    clearInterval(this.#timer);
    this.#context?.close();
    this.#context = null;
  }
}

// hls.js: plays this server's HLS with fragmented MP4 (RFC 8216) in browsers without native HLS. It plays the best
// variant and does not switch; this is enough to check a broadcast.

import { t } from './texts.js';

const BEHIND = 6; // seconds behind the newest media that cause a seek
const KEEP = 30; // seconds of played media that are kept

/** The tags of a playlist: `{ tag, attributes, uri }`, with the URI on the line below a tag. */
export function parse(text) {
  /** @type {{ tag: string, attributes: Record<string, string>, value: string, uri?: string }[]} */
  const found = [];
  for (const line of text.split(/\r?\n/)) {
    if (!line) continue;
    const [, tag, rest] = line.match(/^#(EXT[^:]*):?(.*)$/) ?? [];
    if (tag) found.push({ tag, attributes: attributes(rest), value: rest });
    else if (!line.startsWith('#') && found.length) found.at(-1).uri = line;
  }
  return found;
}

function attributes(text) {
  /** @type {Record<string, string>} */
  const all = {};
  for (const [, name, quoted, plain] of text.matchAll(/([A-Z0-9-]+)=(?:"([^"]*)"|([^,]*))/g))
    all[name] = quoted ?? plain;
  return all;
}

/** The best video of a multivariant playlist and its audio, as `{ uri, codecs }` each; empty for other playlists. */
export function renditions(text) {
  const lines = parse(text);
  const variants = lines.filter((line) => line.tag === 'EXT-X-STREAM-INF' && line.uri);
  const most = variants.toSorted((a, b) => Number(b.attributes.BANDWIDTH) - Number(a.attributes.BANDWIDTH))[0];
  if (!most) return [];
  const { CODECS: codecs = '', AUDIO: group } = most.attributes;
  const beside = lines.find(
    ({ tag, attributes: a }) => tag === 'EXT-X-MEDIA' && a.TYPE === 'AUDIO' && a['GROUP-ID'] === group && a.URI,
  );
  if (!beside || beside.attributes.URI === most.uri) return [{ uri: most.uri, codecs }];
  // The variant lists both codecs; each is in its own rendition.
  const isSound = (codec) => /^(mp4a|opus)/i.test(codec);
  const those = (wanted) =>
    codecs
      .split(',')
      .map((codec) => codec.trim())
      .filter((codec) => isSound(codec) === wanted)
      .join(',');
  return [
    { uri: most.uri, codecs: those(false) },
    { uri: beside.attributes.URI, codecs: those(true) },
  ];
}

/** The initialization segment and the complete segments of a media playlist, with their numbers. */
export function segments(text) {
  const lines = parse(text);
  const first = Number(lines.find((line) => line.tag === 'EXT-X-MEDIA-SEQUENCE')?.value ?? 0);
  const list = lines
    .filter((line) => line.tag === 'EXTINF')
    .map((line) => ({ uri: findUri(lines, line), seconds: parseFloat(line.value) }));
  const named = list.filter((segment) => segment.uri).map((segment, at) => ({ ...segment, number: first + at }));
  return {
    head: lines.find((line) => line.tag === 'EXT-X-MAP')?.attributes.URI ?? null,
    list: named,
    over: lines.some((line) => line.tag === 'EXT-X-ENDLIST'),
  };
}

/** The URI of a segment follows its EXTINF, possibly after other tags. */
function findUri(lines, from) {
  for (const line of lines.slice(lines.indexOf(from))) {
    if (line !== from && line.tag === 'EXTINF') return null;
    if (line.uri) return line.uri;
  }
  return null;
}

/**
 * Plays `url` in `video`; calls `failed(text)` on an error. Returns a function that stops it.
 * @param {HTMLVideoElement} video
 * @param {string} url
 * @param {(text: string) => void} failed
 * @returns {() => void}
 */
export function play(video, url, failed = () => {}) {
  // Media Source comes first: some browsers claim native HLS and cannot play it.
  if (!globalThis.MediaSource) {
    video.src = url;
    return () => {};
  }
  const gone = new AbortController();
  const media = new MediaSource();
  const address = URL.createObjectURL(media);
  video.src = address;
  media.addEventListener(
    'sourceopen',
    () => feed(media, video, url, gone.signal).catch((error) => !gone.signal.aborted && failed(error.message)),
    { once: true },
  );
  return () => {
    gone.abort();
    URL.revokeObjectURL(address);
  };
}

async function feed(media, video, url, signal) {
  const text = async (from) => {
    const response = await fetch(from, { signal, cache: 'no-store' });
    if (!response.ok)
      throw new Error(
        response.status === 404
          ? t('hls.no_broadcast')
          : t('hls.answered', { status: response.status }),
      );
    return { body: await response.text(), at: response.url };
  };
  const bytes = async (from) => {
    const response = await fetch(from, { signal });
    if (!response.ok) throw new Error(t('hls.answered', { status: response.status }));
    return response.arrayBuffer();
  };
  const asked = new URL(url, location.href);
  // The credentials are added to every URL.
  const below = (uri, at) => {
    const address = new URL(uri, at);
    if (!address.search) address.search = asked.search;
    return address;
  };
  const master = await text(asked);
  const named = renditions(master.body).map(({ uri, codecs }) => ({ playlist: below(uri, master.at), codecs }));
  /** @type {{ playlist: URL, codecs: string, buffer?: SourceBuffer, next?: number | null, over?: boolean }[]} */
  const tracks = named.length ? named : [{ playlist: asked, codecs: 'avc1.42e01f,mp4a.40.2' }];
  const types = tracks.map(({ codecs }) => `video/mp4; codecs="${codecs}"`);
  if (!types.every((type) => MediaSource.isTypeSupported(type)))
    throw new Error(t('hls.cannot_play'));
  // All source buffers are added before the first byte; later ones are refused.
  tracks.forEach((track, at) =>
    Object.assign(track, { buffer: media.addSourceBuffer(types[at]), next: null, over: false }),
  );
  const ready = (buffer) =>
    buffer.updating &&
    new Promise((resolve) => {
      buffer.addEventListener('updateend', resolve, { once: true });
    });
  const append = async (buffer, piece) => {
    buffer.appendBuffer(piece);
    await ready(buffer);
  };
  /** Appends new segments of a track; returns the segment duration in seconds. */
  const follow = async (track) => {
    const { body, at } = await text(track.playlist);
    const { head, list, over } = segments(body);
    if (track.next === null && head && list.length) {
      await append(track.buffer, await bytes(below(head, at)));
      track.next = list.at(-Math.min(2, list.length)).number;
    }
    for (const segment of list.filter((one) => track.next !== null && one.number >= track.next)) {
      await append(track.buffer, await bytes(below(segment.uri, at)));
      track.next = segment.number + 1;
    }
    track.over = over;
    return list.at(-1)?.seconds ?? 1;
  };
  while (!signal.aborted) {
    const seconds = await Promise.all(tracks.map(follow));
    const { buffered } = video;
    if (buffered.length) {
      const [start, end] = [buffered.start(0), buffered.end(buffered.length - 1)];
      if (video.currentTime < start || end - video.currentTime > BEHIND)
        video.currentTime = Math.max(start, end - BEHIND / 2);
      if (video.currentTime - start > 2 * KEEP) {
        for (const { buffer } of tracks) {
          buffer.remove(0, video.currentTime - KEEP);
          await ready(buffer);
        }
      }
    }
    if (tracks.every(({ over }) => over)) {
      media.endOfStream();
      return;
    }
    const wait = Math.max(250, (Math.min(...seconds) * 1000) / 2);
    await new Promise((resolve) => {
      setTimeout(resolve, wait);
    });
  }
}

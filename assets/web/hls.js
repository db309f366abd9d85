// hls.js: plays a live page of our own server, HLS with fragmented MP4 (RFC 8216), where the browser does not by itself.
// The best picture and its sound, no switching: what anyone needs to see that a broadcast runs. Other players do more.

const BEHIND = 6; // seconds behind the newest media before it jumps
const KEEP = 30; // seconds of what was played

/** The lines of a playlist that name something: `{ tag, attributes, uri }`, where a tag with a URI below it has both. */
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
  for (const [, name, quoted, plain] of text.matchAll(/([A-Z0-9-]+)=(?:"([^"]*)"|([^,]*))/g)) all[name] = quoted ?? plain;
  return all;
}

/** The best picture of a master playlist and the sound that goes with it, as `{ uri, codecs }` each; none when it is no master. */
export function renditions(text) {
  const lines = parse(text);
  const variants = lines.filter((line) => line.tag === 'EXT-X-STREAM-INF' && line.uri);
  const most = variants.toSorted((a, b) => Number(b.attributes.BANDWIDTH) - Number(a.attributes.BANDWIDTH))[0];
  if (!most) return [];
  const { CODECS: codecs = '', AUDIO: group } = most.attributes;
  const beside = lines.find(({ tag, attributes: a }) => tag === 'EXT-X-MEDIA' && a.TYPE === 'AUDIO' && a['GROUP-ID'] === group && a.URI);
  if (!beside || beside.attributes.URI === most.uri) return [{ uri: most.uri, codecs }];
  // The variant names both codecs, and each is in a file of its own.
  const isSound = (codec) => /^(mp4a|opus)/i.test(codec);
  const those = (wanted) => codecs.split(',').map((codec) => codec.trim()).filter((codec) => isSound(codec) === wanted).join(',');
  return [{ uri: most.uri, codecs: those(false) }, { uri: beside.attributes.URI, codecs: those(true) }];
}

/** The head and the whole segments of a media playlist, in order, with their numbers. */
export function segments(text) {
  const lines = parse(text);
  const first = Number(lines.find((line) => line.tag === 'EXT-X-MEDIA-SEQUENCE')?.value ?? 0);
  const list = lines.filter((line) => line.tag === 'EXTINF').map((line) => ({ uri: findUri(lines, line), seconds: parseFloat(line.value) }));
  const named = list.filter((segment) => segment.uri).map((segment, at) => ({ ...segment, number: first + at }));
  return { head: lines.find((line) => line.tag === 'EXT-X-MAP')?.attributes.URI ?? null, list: named, over: lines.some((line) => line.tag === 'EXT-X-ENDLIST') };
}

/** The URI of a segment stands below its EXTINF, with other tags between. */
function findUri(lines, from) {
  for (const line of lines.slice(lines.indexOf(from))) {
    if (line !== from && line.tag === 'EXTINF') return null;
    if (line.uri) return line.uri;
  }
  return null;
}

/**
 * Plays `url` in `video`; `failed(text)` is told why it cannot. Returns what ends it.
 * @param {HTMLVideoElement} video
 * @param {string} url
 * @param {(text: string) => void} failed
 * @returns {() => void}
 */
export function play(video, url, failed = () => {}) {
  // Browsers that have both say they play HLS, and some then do not.
  if (!globalThis.MediaSource) {
    video.src = url;
    return () => {};
  }
  const gone = new AbortController();
  const media = new MediaSource();
  const address = URL.createObjectURL(media);
  video.src = address;
  media.addEventListener('sourceopen', () => feed(media, video, url, gone.signal).catch((error) => !gone.signal.aborted && failed(error.message)), { once: true });
  return () => {
    gone.abort();
    URL.revokeObjectURL(address);
  };
}

async function feed(media, video, url, signal) {
  const text = async (from) => {
    const response = await fetch(from, { signal, cache: 'no-store' });
    if (!response.ok) throw new Error(response.status === 404 ? 'It has not begun yet, or is over.' : `The server answered ${response.status}.`);
    return { body: await response.text(), at: response.url };
  };
  const bytes = async (from) => {
    const response = await fetch(from, { signal });
    if (!response.ok) throw new Error(`The server answered ${response.status}.`);
    return response.arrayBuffer();
  };
  const asked = new URL(url, location.href);
  // What says who one is goes with every address.
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
  if (!types.every((type) => MediaSource.isTypeSupported(type))) throw new Error('This browser cannot play it.');
  // All of them before the first byte: what is added later is refused.
  tracks.forEach((track, at) => Object.assign(track, { buffer: media.addSourceBuffer(types[at]), next: null, over: false }));
  const ready = (buffer) => buffer.updating && new Promise((resolve) => { buffer.addEventListener('updateend', resolve, { once: true }); });
  const append = async (buffer, piece) => {
    buffer.appendBuffer(piece);
    await ready(buffer);
  };
  /** Takes what is new of a track; gives how long its segments are, in seconds. */
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
      if (video.currentTime < start || end - video.currentTime > BEHIND) video.currentTime = Math.max(start, end - BEHIND / 2);
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
    await new Promise((resolve) => { setTimeout(resolve, wait); });
  }
}

// hls.js: plays a live page of our own server, HLS with fragmented MP4 (RFC 8216), where the browser does not by itself.
// One rendition, no switching: what anyone needs to see that a broadcast runs. Other players do more.

const BEHIND = 6; // seconds behind the newest media before it jumps
const KEEP = 30; // seconds of what was played

/** The lines of a playlist that name something: `{ tag, attributes, uri }`, where a tag with a URI below it has both. */
export function parse(text) {
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
  const all = {};
  for (const [, name, quoted, plain] of text.matchAll(/([A-Z0-9-]+)=(?:"([^"]*)"|([^,]*))/g)) all[name] = quoted ?? plain;
  return all;
}

/** The best rendition of a master playlist: `{ uri, codecs }`; itself when it is no master. */
export function best(text) {
  const variants = parse(text).filter((line) => line.tag === 'EXT-X-STREAM-INF' && line.uri);
  const most = variants.toSorted((a, b) => Number(b.attributes.BANDWIDTH) - Number(a.attributes.BANDWIDTH))[0];
  return most ? { uri: most.uri, codecs: most.attributes.CODECS } : null;
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

/** Plays `url` in `video`; `failed(text)` is told why it cannot. Returns what ends it. */
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
  const chosen = best(master.body);
  const playlist = chosen ? below(chosen.uri, master.at) : asked;
  const type = `video/mp4; codecs="${chosen?.codecs ?? 'avc1.42e01f,mp4a.40.2'}"`;
  if (!MediaSource.isTypeSupported(type)) throw new Error('This browser cannot play it.');
  const buffer = media.addSourceBuffer(type);
  const ready = () => buffer.updating && new Promise((resolve) => { buffer.addEventListener('updateend', resolve, { once: true }); });
  const append = async (piece) => {
    buffer.appendBuffer(piece);
    await ready();
  };
  let next = null;
  while (!signal.aborted) {
    const { body, at } = await text(playlist);
    const { head, list, over } = segments(body);
    if (next === null && head && list.length) {
      await append(await bytes(below(head, at)));
      next = list.at(-Math.min(2, list.length)).number;
    }
    for (const segment of list.filter((one) => next !== null && one.number >= next)) {
      await append(await bytes(below(segment.uri, at)));
      next = segment.number + 1;
    }
    const { buffered } = buffer;
    if (buffered.length) {
      const [start, end] = [buffered.start(0), buffered.end(buffered.length - 1)];
      if (video.currentTime < start || end - video.currentTime > BEHIND) video.currentTime = Math.max(start, end - BEHIND / 2);
      if (video.currentTime - start > 2 * KEEP) {
        buffer.remove(start, video.currentTime - KEEP);
        await ready();
      }
    }
    if (over) {
      media.endOfStream();
      return;
    }
    const wait = Math.max(250, ((list.at(-1)?.seconds ?? 1) * 1000) / 2);
    await new Promise((resolve) => { setTimeout(resolve, wait); });
  }
}

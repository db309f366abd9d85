// wire.js: the texts that commingle.js exchanges with the server, as pure functions without network, clock and DOM.

const lines = (sdp) => sdp.split(/\r?\n/).filter((line) => line !== '');
const valueOf = (all, prefix) => all.find((line) => line.startsWith(prefix))?.slice(prefix.length);

/** ICE username fragment and password of an SDP or SDP fragment (of its first section, because media is bundled). */
export function iceCredentials(sdp) {
  const all = lines(sdp);
  return { ufrag: valueOf(all, 'a=ice-ufrag:'), pwd: valueOf(all, 'a=ice-pwd:') };
}

/** The m= line and the mid of each media section of an SDP, in order. */
function sections(sdp) {
  const found = [];
  for (const line of lines(sdp)) {
    if (line.startsWith('m=')) found.push({ m: line.replace(/^(m=\w+) \d+/, '$1 9'), mid: '' });
    else if (line.startsWith('a=mid:') && found.length) found.at(-1).mid = line.slice('a=mid:'.length);
  }
  return found;
}

/**
 * A trickle-ice fragment (RFC 8840) for `candidates` gathered for the local description `sdp`.
 * Without candidates and with `done` false it is the fragment of an ICE restart: only the new credentials.
 */
export function trickleFragment(sdp, candidates, done = false) {
  const { ufrag, pwd } = iceCredentials(sdp);
  const parts = sections(sdp);
  const out = [`a=ice-ufrag:${ufrag}`, `a=ice-pwd:${pwd}`];
  const section = ({ m, mid }) => out.push(m, `a=mid:${mid}`);
  if (!candidates.length) {
    section(parts[0]);
  } else {
    for (const part of parts) {
      const mine = candidates.filter((c) => (c.sdpMid ?? parts[c.sdpMLineIndex]?.mid) === part.mid);
      if (!mine.length) continue;
      section(part);
      for (const c of mine) out.push(`a=${c.candidate.replace(/^a=/, '')}`);
    }
  }
  if (done) out.push('a=end-of-candidates');
  return `${out.join('\r\n')}\r\n`;
}

/** The answer `sdp` with the ICE credentials and candidates of `fragment` (RFC 9725 section 4.3.3). */
export function restartedAnswer(sdp, fragment) {
  const { ufrag, pwd } = iceCredentials(fragment);
  const candidates = lines(fragment).filter((l) => l.startsWith('a=candidate:') || l === 'a=end-of-candidates');
  const out = [];
  let section = 0;
  const finish = () => section === 1 && out.push(...candidates);
  for (const line of lines(sdp)) {
    if (line.startsWith('m=')) {
      finish();
      section += 1;
    }
    if (line.startsWith('a=ice-ufrag:')) out.push(`a=ice-ufrag:${ufrag}`);
    else if (line.startsWith('a=ice-pwd:')) out.push(`a=ice-pwd:${pwd}`);
    else if (!line.startsWith('a=candidate:') && line !== 'a=end-of-candidates') out.push(line);
  }
  finish();
  return `${out.join('\r\n')}\r\n`;
}

/** The local address of the selected candidate pair, from a connection's statistics; null if unknown. */
export function sentFrom(stats) {
  const transport = [...stats.values()].find((s) => s.type === 'transport');
  const pair = stats.get(transport?.selectedCandidatePairId);
  return stats.get(pair?.localCandidateId)?.address ?? null;
}

/** The offer `sdp` with section `mid` marked as a screen (RFC 4796), which browsers do not do. */
export function markScreen(sdp, mid) {
  return sdp.replace(new RegExp(`^a=mid:${mid}(?=\\r?$)`, 'm'), '$&\r\na=content:slides');
}

/** The ICE servers of a `Link` header: `<turn:host>; rel="ice-server"; username="u"; credential="c"` (RFC 9725). */
export function iceServersOf(header) {
  if (!header) return [];
  const servers = [];
  for (const part of header.split(/,\s*(?=<)/)) {
    const url = part.match(/^\s*<([^>]+)>/)?.[1];
    if (!url || !/rel="?ice-server"?/.test(part) || !/^(stun|turn)s?:/.test(url)) continue;
    const server = { urls: url };
    const username = part.match(/username="((?:[^"\\]|\\.)*)"/)?.[1];
    const credential = part.match(/credential="((?:[^"\\]|\\.)*)"/)?.[1];
    if (username !== undefined) server.username = username.replace(/\\(.)/g, '$1');
    if (credential !== undefined) server.credential = credential.replace(/\\(.)/g, '$1');
    servers.push(server);
  }
  return servers;
}

/** The delay of a `Retry-After` header in ms from `now`: seconds or a date (RFC 9110, 10.2.3). 0 without one. */
export function retryAfter(header, now) {
  const text = header?.trim();
  if (!text) return 0;
  const wait = /^\d+$/.test(text) ? Number(text) * 1000 : Date.parse(text) - now;
  return wait > 0 && wait < Infinity ? wait : 0;
}

const idOf = (participant) => (typeof participant === 'object' ? participant?.id : participant);

/** The room document after an event, as a new object; unknown events change only the version. */
export function applyEvent(room, event) {
  const next = applied(room, event);
  if (event.type !== 'updated' && event.type !== 'left') return next;
  // A participant's own view ends when nobody receives it any more; no event says so.
  const received = new Set(next.participants.map(({ receives }) => receives?.view));
  return { ...next, views: next.views.filter(({ view }) => !view.startsWith('own-') || received.has(view)) };
}

/** The room with a participant that waits in the lobby. */
function placed(room, person) {
  const known = room.waiting?.find((p) => p.id === person.id);
  const waiting = known
    ? room.waiting.map((p) => (p.id === person.id ? { ...p, ...person } : p))
    : [...(room.waiting ?? []), { state: 'lobby', ...person }];
  return { ...room, waiting, participants: room.participants.filter((p) => p.id !== person.id) };
}

function applied(room, event) {
  const next = { participants: [], views: [], ...room };
  if (event.version !== undefined) next.version = event.version;
  switch (event.type) {
    case 'room':
      return { participants: [], views: [], ...(event.room ?? event), version: event.version ?? event.room?.version };
    case 'lobby':
      return placed(next, event.participant);
    case 'joined':
    case 'updated': {
      const changed = event.participant;
      if (!idOf(changed)) return next;
      const waits = next.waiting?.some((p) => p.id === changed.id);
      if (changed.state === 'lobby' || (waits && changed.state === undefined)) return placed(next, changed);
      if (waits) next.waiting = next.waiting.filter((p) => p.id !== changed.id);
      const known = next.participants.some((p) => p.id === changed.id);
      next.participants = known
        ? next.participants.map((p) => (p.id === changed.id ? { ...p, ...changed } : p))
        : [...next.participants, changed];
      return next;
    }
    case 'left':
      next.participants = next.participants.filter((p) => p.id !== idOf(event.participant));
      if (next.waiting) next.waiting = next.waiting.filter((p) => p.id !== idOf(event.participant));
      if (next.hands) next.hands = next.hands.filter((id) => id !== idOf(event.participant));
      return next;
    case 'hand': {
      const { participant, raised_at: at } = event;
      const others = (next.hands ?? []).filter((id) => id !== participant);
      next.hands = at ? [...others, participant] : others;
      next.participants = next.participants.map((p) =>
        p.id === participant ? { ...p, hand_raised_at: at ?? undefined } : p,
      );
      return next;
    }
    case 'layout': {
      const { view, kind, canvas, tiles, more } = event;
      const shown = { view, kind, canvas: canvas ?? next.canvas, tiles: tiles ?? [], ...(more && { more }) };
      next.views = [...next.views.filter((v) => v.view !== view), shown];
      return next;
    }
    case 'wanted': {
      const { participant, source, width, height } = event;
      const sends = (list) => list?.map((one) => (one.kind === source ? { ...one, wanted: { width, height } } : one));
      next.participants = next.participants.map((p) => (p.id === participant ? { ...p, sends: sends(p.sends) } : p));
      return next;
    }
    case 'recording':
    case 'broadcast':
    case 'input': {
      const changed = event[event.type];
      const list = next[`${event.type}s`] ?? [];
      const known = list.some((one) => one.id === changed.id);
      next[`${event.type}s`] = known ? list.map((one) => (one.id === changed.id ? changed : one)) : [...list, changed];
      return next;
    }
    case 'overlay': {
      const { overlay } = event;
      const others = (next.overlays ?? []).filter((one) => one.id !== overlay.id);
      next.overlays = overlay.state === 'ended' ? others : [...others, overlay];
      return next;
    }
    case 'mixer':
      next.audio_reduced = event.state === 'audio_reduced' ? event.audio_reduced : null;
      return next;
    case 'speaker':
      next.speaker = idOf(event.participant) ?? null;
      next.speaking = event.speaking ?? (next.speaker ? [next.speaker] : []);
      return next;
    default:
      return next;
  }
}

/**
 * Statistics of one second, from two results of `RTCPeerConnection.getStats()`. Rates in kbit/s, `rtt` in milliseconds,
 * `freezes` and `packetsLost` since the start of the connection.
 */
export function summarise(now, before) {
  const all = [...now.values()];
  const inbound = (kind) => all.find((s) => s.type === 'inbound-rtp' && s.kind === kind);
  const rate = (s, field) => {
    const old = s && before?.get(s.id);
    const seconds = old ? (s.timestamp - old.timestamp) / 1000 : 0;
    return seconds > 0 ? (Math.max(0, (s[field] ?? 0) - (old[field] ?? 0)) * 8) / 1000 / seconds : 0;
  };
  const down = all.filter((s) => s.type === 'inbound-rtp');
  const up = all.filter((s) => s.type === 'outbound-rtp');
  const video = inbound('video');
  const audio = inbound('audio');
  const sent = up.find((s) => s.kind === 'video');
  const codec = (s) => (s && now.get(s.codecId)?.mimeType?.split('/')[1]) || '';
  const pair = all.find((s) => s.type === 'candidate-pair' && s.nominated && s.state === 'succeeded');
  const sum = (list, f) => list.reduce((total, s) => total + f(s), 0);
  return {
    streams: down.filter((s) => s.kind === 'video' && s.framesReceived > 0).length,
    kbpsDown: Math.round(sum(down, (s) => rate(s, 'bytesReceived'))),
    kbpsUp: Math.round(sum(up, (s) => rate(s, 'bytesSent'))),
    fps: Math.round(video?.framesPerSecond ?? 0),
    width: video?.frameWidth ?? 0,
    height: video?.frameHeight ?? 0,
    framesDecoded: video?.framesDecoded ?? 0,
    codec: codec(video),
    audioCodec: codec(audio),
    loss: lossBetween(down, before),
    packetsLost: sum(down, (s) => Math.max(0, s.packetsLost ?? 0)),
    freezes: video?.freezeCount ?? 0,
    rtt: pair?.currentRoundTripTime === undefined ? null : Math.round(pair.currentRoundTripTime * 1000),
    sentWidth: sent?.frameWidth ?? 0,
    sentHeight: sent?.frameHeight ?? 0,
    sentFps: Math.round(sent?.framesPerSecond ?? 0),
  };
}

/** The share of packets lost since the statistics `before`, 0 to 1. */
function lossBetween(streams, before) {
  let [lost, received] = [0, 0];
  for (const stream of streams) {
    const old = before?.get(stream.id);
    if (!old) continue;
    lost += (stream.packetsLost ?? 0) - (old.packetsLost ?? 0);
    received += (stream.packetsReceived ?? 0) - (old.packetsReceived ?? 0);
  }
  return lost > 0 ? lost / (lost + Math.max(0, received)) : 0; // late packets make the difference negative
}

/**
 * The factor by which a camera of `width` x `height` is scaled down for a tile of `tile` pixels. The server limits the
 * bitrate itself.
 */
export function scaleFor(width, height, tile) {
  return tile?.width && width ? Math.max(1, Math.min(width / tile.width, height / tile.height)) : 1;
}

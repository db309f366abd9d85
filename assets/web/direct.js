// direct.js: a direct connection between two participants (docs/api.md, "Two participants, directly").
// Owns: the second RTCPeerConnection and its signalling. Input: the room's `direct` events. Does not know any page.

const LOST_AFTER = 1000; // ms in the state `disconnected` before the mixer takes over
const SILENT_AFTER = 1000; // ms without audio from a peer that sends it; browsers need seconds to detect this
const BEGINS_WITHIN = 3000; // ms until the first audio packet, which is late on a busy machine
const LOOK = 200; // ms between two checks

/** The number of received audio packets. */
async function audioPackets(peer) {
  const streams = [...(await peer.getStats()).values()].filter((s) => s.type === 'inbound-rtp' && s.kind === 'audio');
  return streams.reduce((sum, s) => sum + s.packetsReceived, 0);
}

/**
 * `send(message)` sends a message to the room; `tracks()` returns the tracks to send, `iceServers()` the ICE servers.
 * `changed(stream)` is called with the peer's stream when media is direct, and with null when it is mixed again.
 */
export class Direct {
  #send;
  #tracks;
  #iceServers;
  #changed;
  #peer = null;
  #stream = null;
  #on = false;
  #peerKinds = []; // the kinds that the peer sends
  #early = []; // candidates received before their description
  #turn = Promise.resolve(); // signals are handled in order
  /** @type {ReturnType<typeof setTimeout> | number} */
  #timer = 0;

  constructor({ send, tracks, iceServers, changed }) {
    this.#send = send;
    this.#tracks = tracks;
    this.#iceServers = iceServers;
    this.#changed = changed;
  }

  /** Whether media is sent directly. */
  get on() {
    return this.#on;
  }

  /** The direct connection, if there is one. */
  get peer() {
    return this.#peer;
  }

  /** Handles a `direct` event of the room. */
  handle(event) {
    this.#turn = this.#turn.then(() => this.#take(event)).catch(() => this.#fail());
  }

  /** Sends `track` or nothing of this kind. */
  async replace(kind, track) {
    const transceiver = this.#peer?.getTransceivers().find((t) => t.receiver.track.kind === kind);
    await transceiver?.sender.replaceTrack(track);
    if (this.#peer) this.#announceKinds();
  }

  /** Closes the connection without a message to the peer. */
  end() {
    clearTimeout(this.#timer);
    const [peer, on] = [this.#peer, this.#on];
    this.#peer = this.#stream = null;
    this.#on = false;
    if (on) this.#changed(null, () => peer?.close());
    else peer?.close();
  }

  async #take({ state, offers, signal }) {
    if (state === 'begin') await this.#begin(offers);
    else if (state === 'end') this.end();
    else if (state === 'on' && this.#peer) {
      this.#on = true;
      this.#changed(this.#stream);
      this.#watch(this.#peer);
    } else if (state === 'signal' && this.#peer) await this.#handleSignal(signal);
  }

  async #begin(offers) {
    this.end();
    const peer = (this.#peer = new RTCPeerConnection({ bundlePolicy: 'max-bundle', iceServers: this.#iceServers() }));
    this.#stream = new MediaStream();
    this.#early = [];
    this.#peerKinds = [];
    this.#announceKinds();
    peer.onicecandidate = ({ candidate }) =>
      peer === this.#peer && candidate && this.#signal({ candidate: candidate.toJSON() });
    peer.ontrack = ({ track }) => peer === this.#peer && this.#stream.addTrack(track);
    peer.onconnectionstatechange = () => peer === this.#peer && this.#peerChanged();
    if (!offers) return;
    for (const kind of ['audio', 'video']) peer.addTransceiver(this.#track(kind) ?? kind, { direction: 'sendrecv' });
    await peer.setLocalDescription();
    this.#signal({ description: peer.localDescription.toJSON() });
  }

  async #handleSignal({ description, candidate, sends }) {
    const peer = this.#peer;
    if (sends) this.#peerKinds = sends;
    if (candidate && !peer.remoteDescription) this.#early.push(candidate);
    else if (candidate) await peer.addIceCandidate(candidate).catch(() => {}); // other candidates may work
    if (!description) return;
    await peer.setRemoteDescription(description);
    for (const early of this.#early.splice(0)) await peer.addIceCandidate(early).catch(() => {});
    if (description.type !== 'offer') return;
    for (const transceiver of peer.getTransceivers()) {
      transceiver.direction = 'sendrecv';
      await transceiver.sender.replaceTrack(this.#track(transceiver.receiver.track.kind) ?? null);
    }
    await peer.setLocalDescription();
    this.#signal({ description: peer.localDescription.toJSON() });
  }

  #peerChanged() {
    const { connectionState } = this.#peer;
    clearTimeout(this.#timer);
    if (connectionState === 'connected' && !this.#on) this.#send({ type: 'direct', state: 'connected' });
    if (connectionState === 'disconnected') this.#timer = setTimeout(() => this.#fail(), LOST_AFTER);
    if (connectionState === 'failed' || connectionState === 'closed') this.#fail();
  }

  /** Detects a broken path by missing packets. */
  async #watch(peer) {
    let [packets, at] = [await audioPackets(peer), performance.now()];
    while (peer === this.#peer && this.#on) {
      await new Promise((resolve) => {
        setTimeout(resolve, LOOK);
      });
      const now = await audioPackets(peer);
      if (now !== packets || !this.#peerKinds.includes('audio')) [packets, at] = [now, performance.now()];
      else if (performance.now() - at > (packets ? SILENT_AFTER : BEGINS_WITHIN))
        return peer === this.#peer && this.#fail();
    }
  }

  /** Returns to the mixer at once, also if the message to the room is delayed. */
  #fail() {
    if (!this.#peer) return;
    this.#send({ type: 'direct', state: 'failed' });
    this.end();
  }

  #announceKinds() {
    this.#signal({ sends: this.#tracks().map((track) => track.kind) });
  }

  #track(kind) {
    return this.#tracks().find((track) => track.kind === kind);
  }

  #signal(signal) {
    this.#send({ type: 'direct', signal });
  }
}

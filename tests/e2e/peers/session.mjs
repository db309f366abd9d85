// What the peers for Node.js have in common: arguments, joining, the questions of the test, leaving.
//
//     node tests/e2e/peers/NAME.mjs --url URL --room ROOM --name NAME --colour 30,160,50 --tone 451
//
// A peer prints `{"joined": ID}`. Each line on standard input asks for one line of JSON: what is received now. The end
// of standard input ends the session by DELETE.

import { createInterface } from 'node:readline/promises';
import { parseArgs } from 'node:util';

/** The size and rate of the picture that is sent, and the time in seconds in which the bar crosses it. */
export const PICTURE = { width: 320, height: 180, fps: 15, barTurn: 2.4 };
export const RATE = 48_000;
export const AMPLITUDE = 0.06;

export function readArguments() {
  const { values } = parseArgs({
    options: {
      url: { type: 'string' },
      room: { type: 'string' },
      name: { type: 'string' },
      colour: { type: 'string' },
      tone: { type: 'string' },
    },
  });
  return { ...values, colour: values.colour.split(',').map(Number), tone: Number(values.tone) };
}

/** White on dark colours, black on light ones. */
export function barColour([r, g, b]) {
  return 0.3 * r + 0.59 * g + 0.11 * b > 110 ? [0, 0, 0] : [255, 255, 255];
}

/** Sends the offer; resolves with the answer, the id of the participant and the session's URL. */
async function join({ url, room, name }, offer) {
  const response = await fetch(`${url}/v1/rooms/${room}/participants?name=${name}`, {
    method: 'POST',
    headers: { 'content-type': 'application/sdp' },
    body: offer,
  });
  const answer = await response.text();
  if (response.status !== 201) throw new Error(`joining was answered ${response.status}: ${answer}`);
  return {
    answer,
    id: response.headers.get('commingle-participant'),
    session: new URL(response.headers.get('location'), url),
  };
}

export async function roomDocument({ url, room }) {
  const response = await fetch(`${url}/v1/rooms/${room}`);
  if (!response.ok) throw new Error(`the room was answered ${response.status}`);
  return response.json();
}

/**
 * Runs a peer: joins with the SDP of `pc`, answers questions by `measure`, and leaves.
 * @param {{ url: string, room: string, name: string }} peer
 * @param {any} pc an RTCPeerConnection, of any make
 * @param {(question: any) => Promise<object>} measure
 */
export async function run(peer, pc, measure) {
  await pc.setLocalDescription(await pc.createOffer());
  const { answer, id, session } = await join(peer, pc.localDescription.sdp);
  await pc.setRemoteDescription({ type: 'answer', sdp: answer });
  const say = (value) => process.stdout.write(`${JSON.stringify(value)}\n`);
  say({ joined: id });
  for await (const line of createInterface({ input: process.stdin }))
    say({ ...(await measure(JSON.parse(line))), state: pc.connectionState });
  const left = await fetch(session, { method: 'DELETE' });
  if (!left.ok) throw new Error(`leaving was answered ${left.status}`);
  await pc.close();
}

// layers.js: which simulcast encodings of the camera are sent, and at which size. Pure. Used by connection.js.
//
// In a room with many tiles the camera sends one small encoding; the encoding before is sent until the server decodes
// the new one, so that the picture never stops. In a small room it sends the largest one, scaled down to its tile.

const LARGE_ROOM = 4; // tiles; with more, small encodings are used
const RIDS = ['q', 'h', 'f'];

/** The encodings to negotiate. They begin as one. */
export const ENCODINGS = RIDS.map((rid, i) => ({ rid, active: rid === 'f', scaleResolutionDownBy: 4 / 2 ** i }));

/** The index of the encoding for a camera that is scaled down by `scale`, among `count`, in a room of `tiles`. */
export function encodingFor(scale, count, tiles) {
  if (count < RIDS.length || tiles <= LARGE_ROOM) return count - 1;
  if (scale >= 2 * Math.SQRT2) return 0;
  return scale >= Math.SQRT2 ? 1 : 2;
}

/**
 * The encodings that send the one at `index` scaled down by `scale`, beside the one with the RID `kept`; null if
 * `encodings` do already.
 */
export function fitEncodings(encodings, { index, scale, kept }) {
  const next = encodings.map((encoding, i) => ({
    ...encoding,
    active: i === index || (encoding.rid !== undefined && encoding.rid === kept),
    scaleResolutionDownBy: i === index ? scale : (encoding.scaleResolutionDownBy ?? 1),
  }));
  const changed = next.some(
    ({ active, scaleResolutionDownBy: by }, i) =>
      active !== (encodings[i].active ?? true) || Math.abs(by - (encodings[i].scaleResolutionDownBy ?? 1)) >= 0.02,
  );
  return changed ? next : null;
}

// stage.js: the mixed video, with the local camera drawn exactly over the own tile.
// Input: the tile, the canvas, the local stream. Does not know the network.

import { icon } from './ui.js';

const CROP_AT_MOST = 0.3; // share of the area; above this, bars are added instead, as in the mixer

/** How video of `width` x `height` fills a tile: as its `fit` says, else `cover` unless this crops more than 30 %. */
export function fit(width, height, tile) {
  if (tile.fit === 'cover' || tile.fit === 'contain') return tile.fit;
  if (!width || !height || !tile.width || !tile.height) return 'cover';
  const picture = width / height;
  const frame = tile.width / tile.height;
  const kept = Math.min(picture, frame) / Math.max(picture, frame);
  return kept >= 1 - CROP_AT_MOST ? 'cover' : 'contain';
}

/** The rectangle of `object-fit: contain` video with aspect ratio `ratio` in a box. */
export function contentBox(boxWidth, boxHeight, ratio) {
  const width = Math.min(boxWidth, boxHeight * ratio);
  const height = width / ratio;
  return { x: (boxWidth - width) / 2, y: (boxHeight - height) / 2, width, height };
}

/** Whether a video with the aspect ratio `ratio` is of another canvas: smaller tiers round their sides. */
const differ = (ratio, { width, height }) => Math.abs(Math.log((ratio * height) / width)) > 0.05;

const even = (value) => Math.round(value / 2) * 2;
const clamp = (value, least, most) => Math.min(most, Math.max(least, value));

/** What the mixer draws the tiles of a room with: the radius of corners if it is fixed, the size of names in percent. */
export const styleOf = ({ layout, theme }) => ({
  radius: layout?.radius ?? theme?.radius,
  fontSize: theme?.font_size ?? 100,
});

/**
 * The mixer's drawing of a tile of this size, in canvas pixels, which the overlay must match.
 * @param {{ width: number, height: number }} size
 * @param {{ radius?: number, fontSize?: number }} [style]
 */
export function look({ width, height }, { radius, fontSize = 100 } = {}) {
  const side = Math.min(width, height);
  const letters = (clamp(8 + side * 0.023, 10, 30) * fontSize) / 100;
  const frame = side >= 170 ? 4 : 2;
  const usual = clamp(even(side * 0.035), 4, 16);
  const corner = radius === undefined ? usual : Math.floor(Math.min(radius, side / 2) / 2) * 2;
  return { letters, frame, margin: frame + even(letters * 0.3), corner };
}

export class Stage {
  #stage;
  #mix;
  #last;
  #frozen = 0; // counts changes of `last`, so that a late frame does not undo a newer one
  #tile;
  #self;
  #label;
  #place = null; // { x, y, width, height, canvas }, null without a tile
  #shown = false;
  #style = {};

  constructor({ stage, mix, last, tile, self, label }) {
    this.#stage = stage;
    this.#mix = mix;
    this.#last = last;
    this.#tile = tile;
    this.#self = self;
    this.#label = label;
    new ResizeObserver(() => this.#lay(true)).observe(stage);
    mix.addEventListener('resize', () => this.#lay(true));
    self.addEventListener('resize', () => this.#lay(true));
  }

  /** Sets the local camera; null while it is off, which shows the avatar of the mix. */
  setLocal(stream) {
    const track = stream?.getVideoTracks()[0];
    if (!track) {
      this.#self.srcObject = null;
    } else if (this.#self.srcObject?.getVideoTracks()[0] !== track) {
      this.#self.srcObject = new MediaStream([track]);
      this.#self.play().catch(() => {}); // muted video is refused only if it is replaced at once
    }
    // The rear camera of a phone is not mirrored.
    this.#self.style.transform = track?.getSettings().facingMode === 'environment' ? 'none' : '';
    this.#lay();
  }

  /** Sets the style of the room's tiles; see `styleOf`. */
  setStyle(style) {
    this.#style = style;
  }

  /** Sets the own tile in canvas pixels; undefined before the first layout, when the camera fills the stage. */
  setTile(place) {
    this.#place = place;
    this.#lay();
  }

  /** Keeps the last picture visible until `thaw()`, because a new track begins without a picture. */
  freeze() {
    if (!this.#mix.videoWidth || !this.#last.hidden) return;
    this.#frozen += 1;
    this.#capture();
    this.#last.hidden = false;
    this.#follow(this.#frozen);
  }

  /** Shows the video again, at its next frame. */
  thaw() {
    if (this.#last.hidden) return;
    this.#frozen += 1;
    const frozen = this.#frozen;
    const shown = () => frozen === this.#frozen && this.clear();
    if (this.#mix.requestVideoFrameCallback) this.#mix.requestVideoFrameCallback(shown);
    else shown();
  }

  /** Forgets the last picture. */
  clear() {
    this.#frozen += 1;
    this.#last.hidden = true;
  }

  #capture() {
    const { videoWidth: width, videoHeight: height } = this.#mix;
    if (!width) return;
    Object.assign(this.#last, { width, height });
    this.#last.getContext('2d').drawImage(this.#mix, 0, 0, width, height);
  }

  /** While only the server's HTTP port is unreachable, frames still arrive. */
  #follow(frozen) {
    this.#mix.requestVideoFrameCallback?.(() => {
      if (frozen !== this.#frozen) return;
      this.#capture();
      this.#follow(frozen);
    });
  }

  setLabel(name, muted) {
    const text = document.createElement('span');
    text.textContent = name;
    this.#label.replaceChildren(...(muted ? [icon('mic-off')] : []), text);
    this.#label.hidden = !name;
  }

  setSpeaking(speaking) {
    this.#tile.classList.toggle('speaking', speaking);
  }

  #lay(still = false) {
    // While the video still has the shape of the view before, the tile would be somewhere else in it.
    const shape = this.#place && !this.#place.direct && this.#place.canvas;
    const other = shape && this.#mix.videoWidth && differ(this.#mix.videoWidth / this.#mix.videoHeight, shape);
    const visible = Boolean(this.#self.srcObject) && this.#place !== null && !other;
    this.#tile.hidden = !visible;
    this.#stage.classList.toggle('has-self', visible);
    if (!visible) {
      this.#shown = false;
      return;
    }
    const canvas = this.#place?.canvas ?? { width: 16, height: 9 };
    const ratio = this.#mix.videoWidth ? this.#mix.videoWidth / this.#mix.videoHeight : canvas.width / canvas.height;
    const bounds = this.#stage.getBoundingClientRect(); // not clientWidth, which is rounded
    const box = contentBox(bounds.width, bounds.height, ratio);
    const place = this.#place ?? { x: 0, y: 0, ...canvas };
    const [sx, sy] = [box.width / canvas.width, box.height / canvas.height];
    // Rounded outward to device pixels, plus half a canvas pixel that scaling blurs over the edge, so that the delayed
    // tile below is never visible.
    const grid = globalThis.devicePixelRatio || 1;
    const down = (v, least, origin) => Math.floor((origin + Math.max(v, least)) * grid + 0.01) / grid - origin;
    const up = (v, most, origin) => Math.ceil((origin + Math.min(v, most)) * grid - 0.01) / grid - origin;
    const left = down(box.x + (place.x - 0.5) * sx, box.x, bounds.left);
    const top = down(box.y + (place.y - 0.5) * sy, box.y, bounds.top);
    const right = up(box.x + (place.x + place.width + 0.5) * sx, box.x + box.width, bounds.left);
    const bottom = up(box.y + (place.y + place.height + 0.5) * sy, box.y + box.height, bounds.top);
    this.#tile.classList.toggle('still', still || !this.#shown);
    this.#shown = true;
    const { style } = this.#tile;
    style.left = `${left}px`;
    style.top = `${top}px`;
    style.width = `${right - left}px`;
    style.height = `${bottom - top}px`;
    const whole = place.width >= canvas.width && place.height >= canvas.height;
    const unit = this.#place ? sx : box.width / 1280;
    const drawn = look(this.#place ?? { width: 1280, height: 720 }, this.#style);
    for (const [name, pixels] of Object.entries(drawn)) style.setProperty(`--${name}`, `${pixels * unit}px`);
    this.#tile.classList.toggle('whole', whole); // a single tile has no round corners
    this.#tile.classList.toggle('contain', fit(this.#self.videoWidth, this.#self.videoHeight, place) === 'contain');
  }
}

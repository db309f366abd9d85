// stage.js: the mixed picture, and one's own camera laid exactly over one's own tile of it.
// Told: the tile, the canvas, the local stream. Knows nothing of the network.

import { icon } from './ui.js';

const CROP_AT_MOST = 0.3; // of a picture's area; more than that and it is fitted with bars, as the mixer does

/** How a picture of `width` x `height` fills a tile: `cover` unless cropping would lose more than 30 % of it. */
export function fit(width, height, tile) {
  if (!width || !height || !tile.width || !tile.height) return 'cover';
  const picture = width / height;
  const frame = tile.width / tile.height;
  const kept = Math.min(picture, frame) / Math.max(picture, frame);
  return kept >= 1 - CROP_AT_MOST ? 'cover' : 'contain';
}

/** Where an `object-fit: contain` picture of `ratio` stands in a box. */
export function contentBox(boxWidth, boxHeight, ratio) {
  const width = Math.min(boxWidth, boxHeight * ratio);
  const height = width / ratio;
  return { x: (boxWidth - width) / 2, y: (boxHeight - height) / 2, width, height };
}

const even = (value) => Math.round(value / 2) * 2;
const clamp = (value, least, most) => Math.min(most, Math.max(least, value));

/** How the mixer draws a tile of this size, in canvas pixels: what lies over it must look the same. */
export function look({ width, height }) {
  const side = Math.min(width, height);
  const letters = clamp(8 + side * 0.023, 10, 30);
  const frame = side >= 170 ? 4 : 2;
  return { letters, frame, margin: frame + even(letters * 0.3), corner: clamp(even(side * 0.035), 4, 16) };
}

export class Stage {
  #stage;
  #mix;
  #tile;
  #self;
  #label;
  #place = null; // { x, y, width, height, canvas }, null when one has no tile
  #shown = false;

  constructor({ stage, mix, tile, self, label }) {
    this.#stage = stage;
    this.#mix = mix;
    this.#tile = tile;
    this.#self = self;
    this.#label = label;
    new ResizeObserver(() => this.#lay(true)).observe(stage);
    mix.addEventListener('resize', () => this.#lay(true));
    self.addEventListener('resize', () => this.#lay(true));
  }

  /** One's own camera, or null while it is off: then the mix's own avatar shows. */
  setLocal(stream) {
    const track = stream?.getVideoTracks()[0];
    if (!track) {
      this.#self.srcObject = null;
    } else if (this.#self.srcObject?.getVideoTracks()[0] !== track) {
      this.#self.srcObject = new MediaStream([track]);
      this.#self.play().catch(() => {}); // muted: only refused when replaced at once
    }
    // A camera that looks at others (a phone's back) is not a mirror.
    this.#self.style.transform = track?.getSettings().facingMode === 'environment' ? 'none' : '';
    this.#lay();
  }

  /** The own tile in canvas pixels; undefined before the first layout (then the camera fills the stage). */
  setTile(place) {
    this.#place = place;
    this.#lay();
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
    const visible = Boolean(this.#self.srcObject) && this.#place !== null;
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
    // Outward to whole device pixels, and half a canvas pixel more, which is what scaling smears over a tile's edge:
    // nothing of the delayed self below may show.
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
    const drawn = look(this.#place ?? { width: 1280, height: 720 });
    for (const [name, pixels] of Object.entries(drawn)) style.setProperty(`--${name}`, `${pixels * unit}px`);
    this.#tile.classList.toggle('whole', whole); // alone: no round corners
    this.#tile.classList.toggle('contain', fit(this.#self.videoWidth, this.#self.videoHeight, place) === 'contain');
  }
}

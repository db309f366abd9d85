// closeup.js: an enlarged tile of the mix below it, in portrait: the shared screen, or the person who spoke last.
// It shows the same stream again, so nothing more is received.
// Input: the watched view and the room document. Does not know the network.

import { labelOf } from './names.js';
import { contentBox, look, styleOf } from './stage.js';

const GAP = 8; // CSS pixels above and below the label of a screen

/** The tile to enlarge: a shared screen, else the last speaker, else the first of the others; null if there is none. */
export function choose(view, room, selfId) {
  const others = (view?.tiles ?? []).filter((tile) => tile.participant !== selfId);
  return (
    others.find((tile) => tile.source === 'screen') ??
    others.find((tile) => tile.participant === room.speaker) ??
    others[0] ??
    null
  );
}

/**
 * The part of a tile to show in a box of `width` x `height` pixels, in canvas pixels. A camera is cropped to the box,
 * without the frame and the label that the mixer has drawn. A screen, whose picture has `size`, is shown whole and without the
 * bars beside it; `style` is that of the room's tiles. `labelled` says that the mixer's label is on it, and so in the part.
 */
export function part(tile, { width, height }, size = null, style = {}) {
  const { frame, margin, letters } = look(tile, style);
  const label = margin + letters * 1.65;
  if (tile.source === 'screen') {
    const picture = size && tile.fit !== 'cover' ? size : tile;
    const box = contentBox(tile.width, tile.height, picture.width / picture.height);
    const labelled = tile.height - box.y - box.height < label;
    return {
      x: tile.x + box.x,
      y: tile.y + box.y,
      width: box.width,
      height: labelled ? tile.height - box.y : box.height,
      labelled,
    };
  }
  const inner = {
    x: tile.x + frame,
    y: tile.y + frame,
    width: Math.max(2, tile.width - 2 * frame),
    height: Math.max(2, tile.height - frame - label),
  };
  const ratio = width / height;
  const kept = {
    width: Math.min(inner.width, inner.height * ratio),
    height: Math.min(inner.height, inner.width / ratio),
  };
  const [x, y] = [inner.x + (inner.width - kept.width) / 2, inner.y + (inner.height - kept.height) / 2];
  return { ...kept, x, y, labelled: false };
}

export class Closeup {
  #node;
  #video;
  #stream = null;
  #tile = null;
  #size = null; // of the picture of a shared screen
  #canvas = null;
  #style = {};

  constructor(node) {
    this.#node = node;
    this.#video = node.querySelector('video');
    new ResizeObserver(() => this.#lay()).observe(node);
  }

  /** Sets the stream of the mix; null ends the display. */
  setStream(stream) {
    this.#stream = stream;
    if (!stream) this.draw(null, {}, null);
    this.#lay();
  }

  /** Draws the chosen tile of the view, if there is one. */
  draw(view, room, selfId) {
    const tile = view && choose(view, room, selfId);
    const person = tile && room.participants.find((one) => one.id === tile.participant);
    this.#tile = person ? tile : null;
    this.#size = person?.sends?.find(({ kind }) => kind === 'screen')?.size ?? null;
    this.#canvas = view?.canvas;
    this.#style = styleOf(room);
    this.#node.hidden = !this.#tile;
    this.#node.classList.toggle('screen', this.#tile?.source === 'screen');
    if (!person) return;
    const label = labelOf(person, tile.source);
    const text = this.#node.querySelector('.tile-label span');
    if (text.textContent !== label) text.textContent = label;
    this.#lay();
  }

  #lay() {
    const { clientWidth: width, clientHeight: height } = this.#node;
    const shown = this.#tile && this.#canvas && width && height;
    const stream = shown ? this.#stream : null; // a hidden video costs nothing
    if (this.#video.srcObject !== stream) {
      this.#video.srcObject = stream;
      if (stream) this.#video.play().catch(() => {}); // muted video is refused only if it is replaced at once
    }
    if (!shown) return;
    const box = part(this.#tile, { width, height }, this.#size, this.#style);
    const scale = Math.min(width / box.width, height / box.height);
    const { style } = this.#video;
    style.width = `${this.#canvas.width * scale}px`;
    style.height = `${this.#canvas.height * scale}px`;
    const left = (width - box.width * scale) / 2 - box.x * scale;
    const label = this.#node.querySelector('.tile-label');
    label.hidden = box.labelled;
    // The label of a screen is below it, as far as there is space.
    const isScreen = this.#tile.source === 'screen';
    const strip = isScreen && !box.labelled ? label.offsetHeight + 2 * GAP : 0;
    const free = height - box.height * scale;
    const above = Math.max(0, Math.min(free / 2, free - strip));
    label.style.bottom = isScreen ? `${Math.max(0, free - above - strip) + GAP}px` : '';
    const top = above - box.y * scale;
    style.transform = `translate(${left}px, ${top}px)`;
    // The rest of the picture is cut off.
    const inset = [box.y, this.#canvas.width - box.x - box.width, this.#canvas.height - box.y - box.height, box.x];
    style.clipPath = `inset(${inset.map((side) => `${Math.max(0, side * scale)}px`).join(' ')})`;
  }
}

// Types of globals for `scripts/check-js.sh`: those of pages that scenarios set, and APIs that TypeScript's DOM library
// lacks.

declare global {
  // Set by people.js and by scenarios, in pages.
  var all: any;
  var asked: any;
  var began: any;
  var clients: any;
  var drawn: any;
  var faults: any;
  var Hls: any;
  var isRed: any;
  var looks: any;
  var me: any;
  var pcs: any;
  var people: any;
  var player: any;
  var restarts: any;
  var roamer: any;
  var session: any;
  var shaka: any;
  var shownAt: any;
  var tracks: any;
  var video: any;
  var visitors: any;
  var watching: any;

  interface Window {
    axe: any;
    commingle: any;
    copied: string[];
    heard: any;
    sums: any;
  }

  // https://developer.chrome.com/docs/capabilities/web-apis/mediastreamtrack-insertable-media-processing
  var MediaStreamTrackGenerator: {
    new (init: { kind: 'audio' | 'video' }): MediaStreamTrack & { readonly writable: WritableStream<VideoFrame> };
  };

  // https://wicg.github.io/netinfo/
  interface Navigator {
    readonly connection?: EventTarget & { readonly type?: string };
  }

  interface FocusOptions {
    focusVisible?: boolean;
  }

  // Scenarios look for elements of the page by id.
  interface ParentNode {
    querySelector(selectors: '#mix' | '#preview'): HTMLVideoElement | null;
    querySelector(selectors: '#last'): HTMLCanvasElement | null;
    querySelector(selectors: `#${string}`): HTMLElement | null;
  }

  // Of Safari on iPhone.
  interface HTMLVideoElement {
    webkitEnterFullscreen?(): void;
  }
}

export {};

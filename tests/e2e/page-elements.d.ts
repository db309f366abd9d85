// The elements of index.html that are more than an HTMLElement, by id.

interface PageElements {
  'cam-select': HTMLSelectElement;
  'chat-send': HTMLButtonElement;
  'chat-text': HTMLTextAreaElement;
  'chat-to': HTMLSelectElement;
  check: HTMLButtonElement;
  invitation: HTMLInputElement;
  'invite-create': HTMLButtonElement;
  'invite-dialog': HTMLDialogElement;
  'invite-form': HTMLFormElement;
  'invite-url': HTMLInputElement;
  'join-form': HTMLFormElement;
  join: HTMLButtonElement;
  language: HTMLSelectElement;
  last: HTMLCanvasElement;
  'mic-select': HTMLSelectElement;
  mix: HTMLVideoElement;
  'my-view': HTMLInputElement;
  name: HTMLInputElement;
  other: HTMLVideoElement;
  'player-video': HTMLVideoElement;
  player: HTMLDialogElement;
  preview: HTMLVideoElement;
  'room-dialog': HTMLDialogElement;
  'room-form': HTMLFormElement;
  room: HTMLInputElement;
  screen: HTMLButtonElement;
  search: HTMLInputElement;
  self: HTMLVideoElement;
  'settings-blur': HTMLInputElement;
  'settings-cam': HTMLSelectElement;
  'settings-language': HTMLSelectElement;
  'settings-mic': HTMLSelectElement;
  'settings-preview': HTMLVideoElement;
  'settings-speaker': HTMLSelectElement;
  settings: HTMLDialogElement;
  shortcuts: HTMLDialogElement;
  'source-url': HTMLInputElement;
  'start-form': HTMLFormElement;
  start: HTMLButtonElement;
  'target-url': HTMLInputElement;
  tracks: HTMLInputElement;
  'wait-video': HTMLVideoElement;
}

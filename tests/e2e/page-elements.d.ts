// The elements of index.html that are more than an HTMLElement, by id.

interface PageElements {
  'cam-select': HTMLSelectElement;
  invitation: HTMLInputElement;
  'invite-create': HTMLButtonElement;
  'invite-dialog': HTMLDialogElement;
  'invite-form': HTMLFormElement;
  'invite-url': HTMLInputElement;
  join: HTMLButtonElement;
  'join-form': HTMLFormElement;
  last: HTMLCanvasElement;
  'mic-select': HTMLSelectElement;
  mix: HTMLVideoElement;
  'my-view': HTMLInputElement;
  name: HTMLInputElement;
  other: HTMLVideoElement;
  player: HTMLDialogElement;
  'player-video': HTMLVideoElement;
  preview: HTMLVideoElement;
  room: HTMLInputElement;
  screen: HTMLButtonElement;
  self: HTMLVideoElement;
  'source-url': HTMLInputElement;
  start: HTMLButtonElement;
  'start-form': HTMLFormElement;
  'target-url': HTMLInputElement;
  tracks: HTMLInputElement;
}

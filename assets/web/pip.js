// pip.js: the picture of the call in a small window above other programs, where the browser can do it.
// Owns nothing; the browser owns the window.

/** Whether the browser can show this video in a small window. */
export const canFloat = (video) =>
  Boolean(document.pictureInPictureEnabled && video.requestPictureInPicture) || 'webkitSetPresentationMode' in video;

/** Whether it is in a small window. */
export const floats = (video) =>
  document.pictureInPictureElement === video || video.webkitPresentationMode === 'picture-in-picture';

/** Moves the video into the small window, or back; rejects if the browser refuses. */
export async function toggleFloat(video) {
  if (video.requestPictureInPicture) {
    if (floats(video)) await document.exitPictureInPicture();
    else await video.requestPictureInPicture();
    return;
  }
  // Safari on iPhone.
  video.webkitSetPresentationMode(floats(video) ? 'inline' : 'picture-in-picture');
}

/** Ends it, for example with the call. */
export const endFloat = (video) => floats(video) && toggleFloat(video).catch(() => {});

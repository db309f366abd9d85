// memory.js: settings stored in this browser.

/** Settings stored in this browser; they are lost if storage is blocked. */
export const memory = {
  get(key, fallback = '') {
    try {
      return localStorage.getItem(`commingle.${key}`) ?? fallback;
    } catch {
      return fallback;
    }
  },
  set(key, value) {
    try {
      localStorage.setItem(`commingle.${key}`, value);
    } catch {
      // Private windows may block storage; the setting is then lost.
    }
  },
};

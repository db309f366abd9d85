// Pages that play a broadcast.

import { until } from './page.mjs';

/** Viewports by width. */
export const VIEWS = {
  390: { width: 390, height: 844 },
  820: { width: 820, height: 1180 },
  1440: { width: 1440, height: 900 },
};

const sleep = (ms) =>
  new Promise((resolve) => {
    setTimeout(resolve, ms);
  });

/** The state of the page `/live/{room}`. */
export const state = (page) => page.evaluate(() => document.body.dataset.state);
/** Whether that page reaches a state in time. */
export const reaches = (page, wanted, ms) => until(async () => (await state(page)) === wanted, ms);
/** Seconds of media that a page plays in `ms`. */
export async function plays(page, ms) {
  const at = () => page.evaluate(() => document.querySelector('video').currentTime);
  const from = await at();
  await sleep(ms);
  return (await at()) - from;
}

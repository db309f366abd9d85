// Runs one scenario against a running server and prints its measurements as one line of JSON.
//
//     node tests/e2e/scenario.mjs NAME --url http://127.0.0.1:8080 [--people 3] [--seconds 20] …
//
// A scenario that needs an action on the server prints `> WHAT` and waits for a line on standard input. The Rust tests
// perform the action; by hand, perform it and press Enter.

import { createInterface } from 'node:readline/promises';
import { mkdir, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { launchChromium, launchFirefox, peoplePage } from './browser.mjs';
import * as access from './scenarios/access.mjs';
import * as captions from './scenarios/captions.mjs';
import * as clients from './scenarios/clients.mjs';
import * as direct from './scenarios/direct.mjs';
import * as faults from './scenarios/faults.mjs';
import * as figures from './scenarios/figures.mjs';
import * as inputs from './scenarios/inputs.mjs';
import * as live from './scenarios/live.mjs';
import * as network from './scenarios/network.mjs';
import * as outputs from './scenarios/outputs.mjs';
import * as peers from './scenarios/peers.mjs';
import * as reach from './scenarios/reach.mjs';
import * as people from './scenarios/people.mjs';
import * as relayed from './scenarios/relayed.mjs';
import * as rooms from './scenarios/rooms.mjs';
import * as screen from './scenarios/screen.mjs';
import * as settings from './scenarios/settings.mjs';
import * as sound from './scenarios/sound.mjs';
import * as studio from './scenarios/studio.mjs';
import * as uplink from './scenarios/uplink.mjs';
import * as views from './scenarios/views.mjs';
import * as web from './scenarios/web.mjs';

const scenarios = {
  ...access,
  ...rooms,
  ...captions,
  ...clients,
  ...direct,
  ...faults,
  ...figures,
  ...inputs,
  ...live,
  ...network,
  ...outputs,
  ...peers,
  ...people,
  ...reach,
  ...relayed,
  ...screen,
  ...settings,
  ...sound,
  ...studio,
  ...uplink,
  ...views,
  ...web,
};

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    url: { type: 'string', default: 'http://127.0.0.1:8080' },
    room: { type: 'string', default: `e2e-${process.pid}` },
    people: { type: 'string', default: '2' },
    seconds: { type: 'string', default: '5' },
    codecs: { type: 'string', default: '' },
    seed: { type: 'string', default: '1' },
    relay: { type: 'string', default: '' },
    losses: { type: 'string', default: '0,5,10' },
    rates: { type: 'string', default: '2000,600,200,80,2000' },
    transports: { type: 'string', default: 'udp' },
    policy: { type: 'string', default: 'all' },
    out: { type: 'string', default: 'target/e2e' },
  },
});
const play = scenarios[positionals[0]];
if (!play || positionals.length !== 1) {
  process.stderr.write(
    `usage: scenario.mjs NAME --url URL …, where NAME is one of: ${Object.keys(scenarios).join(', ')}\n`,
  );
  process.exit(2);
}

const options = {
  ...values,
  people: Number(values.people),
  seconds: Number(values.seconds),
  seed: Number(values.seed),
  losses: values.losses.split(',').map(Number),
  rates: values.rates.split(',').map(Number),
  transports: values.transports.split(','),
  codecs: values.codecs ? values.codecs.split(',') : [],
};

const input = createInterface({ input: process.stdin });
const answers = input[Symbol.asyncIterator]();
const browsers = [];
const opened = async (launching) => {
  const browser = await launching;
  browsers.push(browser);
  return browser;
};

const stage = {
  options,
  chromium: (more) => opened(launchChromium(more)),
  firefox: () => opened(launchFirefox()),
  /** A page with `people.js` in its own Chromium. */
  page: async () => peoplePage(await opened(launchChromium()), options.url, options.relay),
  peoplePage: (browser, relay) => peoplePage(browser, options.url, relay),
  /** Requests an action; resolves with the reply when it is done. */
  ask: async (what) => {
    process.stdout.write(`> ${what}\n`);
    const { value, done } = await answers.next();
    if (done) throw new Error(`no reply to the request "${what}"`);
    return value;
  },
  /** Stores a picture, given as a data URL or as bytes. */
  keep: async (name, picture) => {
    await mkdir(options.out, { recursive: true });
    const bytes = typeof picture === 'string' ? Buffer.from(picture.split(',')[1], 'base64') : picture;
    await writeFile(path.join(options.out, `${name}.png`), bytes);
  },
};

let status = 0;
try {
  process.stdout.write(`${JSON.stringify(await play(stage))}\n`);
} catch (error) {
  process.stderr.write(`${error.stack ?? error}\n`);
  status = 1;
}
await Promise.allSettled(browsers.map((browser) => browser.close()));
process.exit(status);

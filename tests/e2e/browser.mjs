// Starts headless browsers, each with its own profile, and creates pages with simulated participants.

import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import puppeteer from 'puppeteer-core';

const CHROMIUM_FLAGS = [
  '--no-sandbox',
  '--use-fake-ui-for-media-stream',
  '--use-fake-device-for-media-stream',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
  '--autoplay-policy=no-user-gesture-required',
  // Pages in the background must keep their timers and rendering.
  '--disable-background-timer-throttling',
  '--disable-renderer-backgrounding',
  '--disable-backgrounding-occluded-windows',
  '--hide-scrollbars',
];

const FIREFOX_PREFERENCES = {
  'media.navigator.streams.fake': true,
  'media.navigator.permission.disabled': true,
  'media.autoplay.default': 0,
  'media.autoplay.blocking_policy': 0,
  // The server listens on loopback.
  'media.peerconnection.ice.loopback': true,
  'media.peerconnection.ice.obfuscate_host_addresses': false,
  'network.captive-portal-service.enabled': false,
  'network.connectivity-service.enabled': false,
  'app.normandy.enabled': false,
  'dom.min_background_timeout_value': 4,
};

function found(variable, usual, name) {
  const path = process.env[variable] || usual;
  if (existsSync(path)) return path;
  throw new Error(
    `${name} is not at ${path}. Run \`make test\` or \`scripts/setup.sh test\`, which install it, or set ${variable}.`,
  );
}

export function launchChromium(more = []) {
  return puppeteer.launch({
    executablePath: found('CHROMIUM', '/usr/bin/chromium', 'Chromium'),
    headless: true,
    args: [...CHROMIUM_FLAGS, ...more],
    protocolTimeout: 300_000,
    defaultViewport: { width: 1440, height: 900 },
  });
}

/**
 * A sound server with a null sink. Without a sound device Firefox's Web Audio never starts. Resolves with its address
 * and a function that stops it.
 */
async function startSoundServer() {
  const program = found('PULSEAUDIO', '/usr/bin/pulseaudio', 'PulseAudio');
  const home = await mkdtemp(path.join(tmpdir(), 'commingle-sound-'));
  const socket = path.join(home, 'native');
  const child = spawn(
    program,
    [
      '-n',
      '--daemonize=no',
      '--exit-idle-time=-1',
      '--use-pid-file=no',
      '--realtime=no',
      '--high-priority=no',
      '--load=module-null-sink sink_name=nowhere',
      `--load=module-native-protocol-unix auth-anonymous=1 socket=${socket}`,
    ],
    { stdio: 'ignore', env: { ...process.env, HOME: home, XDG_RUNTIME_DIR: home } },
  );
  const stop = async () => {
    child.kill();
    await rm(home, { recursive: true, force: true });
  };
  process.on('exit', () => child.kill());
  for (let i = 0; i < 100 && !existsSync(socket); i += 1)
    await new Promise((resolve) => {
      setTimeout(resolve, 50);
    });
  if (existsSync(socket)) return { address: `unix:${socket}`, stop };
  await stop();
  throw new Error(`${program} did not open ${socket} within 5 s`);
}

export async function launchFirefox() {
  const sound = await startSoundServer();
  const browser = await puppeteer.launch({
    browser: 'firefox',
    executablePath: found('FIREFOX', '/usr/bin/firefox-esr', 'Firefox'),
    headless: true,
    extraPrefsFirefox: FIREFOX_PREFERENCES,
    protocolTimeout: 300_000,
    env: { ...process.env, PULSE_SERVER: sound.address },
  });
  browser.on('disconnected', sound.stop);
  return browser;
}

/** From its next document on, a page's media reaches the server only through this port. */
export async function throughRelay(page, port) {
  await page.evaluateOnNewDocument((relay) => {
    const straight = globalThis.fetch;
    const withoutCandidates = (text) => text.replace(/^a=(candidate|end-of-candidates).*\r\n/gm, '');
    globalThis.fetch = async (resource, init = {}) => {
      const type = new Headers(init.headers).get('content-type') ?? '';
      if (!/^application\/(trickle-ice-)?sdp/.test(type)) return straight(resource, init);
      const response = await straight(resource, { ...init, body: withoutCandidates(init.body) });
      if (!response.ok || response.status === 204) return response;
      const [answer, candidates] = [await response.text(), []];
      const rest = answer.replace(
        /^a=candidate:.*\r\n/gm,
        (line) => (candidates.push(line.trim().split(' ')), candidates.length === 1 ? '@' : ''),
      );
      candidates[0][5] = relay;
      const { status, headers } = response;
      const relayed = new Response(rest.replace('@', `${candidates[0].join(' ')}\r\n`), { status, headers });
      Object.defineProperty(relayed, 'url', { value: response.url });
      return relayed;
    };
  }, port);
}

/** A page of the server's origin with `people.js`; its media goes through the port `relay`, if given. */
export async function peoplePage(browser, url, relay) {
  const page = await browser.newPage();
  page.on('pageerror', (error) => process.stderr.write(`page: ${error.stack ?? error}\n`));
  if (relay) await throughRelay(page, relay);
  await page.goto(`${url}/healthz`);
  await page.evaluate(await readFile(new URL('./people.js', import.meta.url), 'utf8'));
  if (process.env.E2E_INJECT) await page.evaluate(await readFile(process.env.E2E_INJECT, 'utf8'));
  return page;
}

// A call in a page of another origin: the React example of docs/examples, and the policy that allows it.

import { createServer } from 'node:http';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

/** The example, bundled with React, for a server and a room. */
async function bundled(server, room) {
  const contents = `
    import { createElement, useState } from 'react';
    import { createRoot } from 'react-dom/client';
    import { Call } from '../../docs/examples/call.jsx';
    window.seen = { left: [] };
    const onLeft = (reason) => window.seen.left.push(reason);
    const call = createElement(Call, { server: ${JSON.stringify(server)}, room: ${JSON.stringify(room)}, name: 'Ann', onLeft });
    createRoot(document.getElementById('root')).render(call);`;
  const here = fileURLToPath(new URL('..', import.meta.url));
  const { outputFiles } = await build({
    stdin: { contents, resolveDir: here },
    nodePaths: [`${here}/node_modules`],
    bundle: true,
    jsx: 'automatic',
    format: 'iife',
    write: false,
    logLevel: 'error',
  });
  return outputFiles[0].text;
}

/** The origin of a site with one page. */
async function site(script) {
  const server = createServer((request, response) => {
    const isScript = request.url === '/app.js';
    response.setHeader('content-type', isScript ? 'text/javascript' : 'text/html');
    response.end(isScript ? script : '<!doctype html><div id="root"></div><script src="/app.js"></script>');
  });
  await new Promise((resolve) => {
    server.listen(0, 'localhost', () => resolve(null));
  });
  const { port } = /** @type {import('node:net').AddressInfo} */ (server.address());
  return { origin: `http://localhost:${port}`, close: () => server.close() };
}

/** Joins and leaves in the frame. `framed` is false if the browser refuses the frame. */
export async function embedded({ chromium, options }) {
  const host = await site(await bundled(options.url, options.room));
  const browser = await chromium();
  const page = await browser.newPage();
  const refusals = [];
  page.on('console', (message) => /frame-ancestors/.test(message.text()) && refusals.push(message.text()));
  await page.goto(host.origin);
  const call = await page.waitForSelector('commingle-call');
  const frameOf = async () => {
    const frame = await call.evaluateHandle((element) => element.shadowRoot?.querySelector('iframe') ?? null);
    return /** @type {any} */ (frame.asElement())?.contentFrame();
  };
  const deadline = Date.now() + 15_000;
  let frame = await frameOf();
  const isThere = async () => Boolean(await frame?.$('#join').catch(() => null));
  while (!(await isThere()) && refusals.length === 0 && Date.now() < deadline) {
    await new Promise((resolve) => {
      setTimeout(resolve, 100);
    });
    frame = await frameOf();
  }
  if (!(await isThere())) {
    host.close();
    return { framed: false, refusals };
  }
  await frame.click('#join');
  const button = await page.waitForSelector('section > button', { timeout: 20_000 });
  await frame.waitForFunction(() => /** @type {HTMLVideoElement} */ (document.querySelector('#mix'))?.videoWidth > 0, { timeout: 20_000 });
  const participant = await call.evaluate((element) => element.participant);
  const room = await (await fetch(`${options.url}/v1/rooms/${options.room}`)).json();
  await button.click();
  await page.waitForFunction(() => window['seen'].left.length === 1, { timeout: 10_000 });
  const { left } = await page.evaluate(() => window['seen']);
  host.close();
  const inRoom = room.participants.map(({ id, name }) => ({ id, name }));
  return { framed: true, participant, inRoom, left, refusals };
}

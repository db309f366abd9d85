// A shared screen: whether its small text can be read in the mix, and whether keyframes of a static screen disturb.

import { execFile } from 'node:child_process';
import { mkdir, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);

// Common English words, so that a text recogniser neither gains nor loses by its dictionary.
const WORDS = `the people of a town by the river built a bridge of stone and paid for it with the sale of bread every
winter the water rose above the meadows and the children walked to school along the wall of the old mill in spring the
farmers brought apples cheese and honey to the market near the station where trains stopped twice each day a doctor
lived in the house with green windows and wrote letters to her brother who worked as an engineer on a distant island
their garden had roses lemons and a small table under the trees visitors often asked how the bridge had survived the
great storm and the answer was always the same good plans honest work and patience`.split(/\s+/);

/** Lines of at most `length` characters. */
function lines(words, length) {
  const all = [''];
  for (const word of words) {
    if (all.at(-1).length + word.length >= length) all.push('');
    all.push(`${all.pop()} ${word}`.trim());
  }
  return all;
}

/** The share of the words that tesseract reads in an image. */
async function readable(file) {
  // Three times the size: its models are trained with letters of about 30 pixels.
  const large = file.replace(/\.png$/, '-large.png');
  const scale = ['-v', 'error', '-y', '-i', file, '-vf', 'scale=iw*3:ih*3:flags=lanczos', large];
  await run('ffmpeg', scale);
  const { stdout } = await run('tesseract', [large, '-', '--psm', '6'], { maxBuffer: 1 << 24 });
  const read = new Map();
  for (const word of stdout.toLowerCase().match(/[a-z]+/g) ?? []) read.set(word, (read.get(word) ?? 0) + 1);
  const found = WORDS.filter((word) => {
    const left = read.get(word) ?? 0;
    read.set(word, left - 1);
    return left > 0;
  });
  return found.length / WORDS.length;
}

/**
 * Ann shares a screen of 1280x720 with text of 12 px; Bob receives `program`, Eve only the screen, and two others
 * lower tiers. Then Fay and Gus join, each of whom needs a keyframe of the static screen.
 */
export async function readable_screen({ page: open, options }) {
  const page = await open();
  await page.evaluate(
    async ({ o, text }) => {
      const { Person, camera, until } = people;
      const paper = Object.assign(document.createElement('canvas'), { width: 1280, height: 720 });
      const pen = paper.getContext('2d', { alpha: false });
      const draw = () => {
        pen.fillStyle = '#ffffff';
        pen.fillRect(0, 0, 1280, 720);
        pen.fillStyle = '#202020';
        pen.font = '12px "Noto Sans", sans-serif';
        text.forEach((line, i) => pen.fillText(line, 40, 60 + i * 18));
      };
      draw();
      // A canvas sends a frame only when it is drawn.
      setInterval(draw, 100);
      const { join } = await import('/commingle.js');
      const own = camera(0, { width: 320, height: 180, fps: 15 });
      globalThis.session = await join({ room: o.room, name: 'Ann', stream: new MediaStream([own.track]) });
      const receive = { room: o.room, send: { video: false, audio: false } };
      globalThis.visitors = {};
      visitors.bob = await new Person({ ...receive, name: 'Bob' }).join();
      visitors.eve = await new Person({ ...receive, name: 'Eve', query: '&view=own&layout=spotlight' }).join();
      for (const tier of ['medium', 'low'])
        visitors[tier] = await new Person({ ...receive, name: tier, query: `&tier=${tier}` }).join();
      await session.setScreen(paper.captureStream(10).getVideoTracks()[0]);
      const tiles = () => session.room.views.map((view) => view.tiles);
      await until(() => tiles().length === 2 && tiles().every((all) => all.some((t) => t.source === 'screen')), 10_000);
    },
    { o: options, text: lines(WORDS, 70) },
  );
  await page.evaluate(() => people.sleep(6_000));
  const shoot = (names) => page.evaluate((all) => all.map((name) => people.shot(visitors[name].video)), names);
  const [program, alone, medium, low] = await shoot(['bob', 'eve', 'medium', 'low']);
  const freezes = await page.evaluate(async (o) => {
    const { Person, sleep, until } = people;
    const since = performance.now();
    for (const name of ['fay', 'gus']) {
      const person = new Person({ name, room: o.room, send: { video: false, audio: false } });
      visitors[name] = await person.join();
      await until(() => person.frames.length > 0, 5_000);
      await sleep(1_500);
    }
    return ['bob', 'eve'].map((name) => visitors[name].freezes(since, performance.now()));
  }, options);
  const [first, second] = await shoot(['fay', 'gus']);
  const times = await page.evaluate(async () => {
    const after = ['fay', 'gus'].map((name) => Math.round(visitors[name].firstFrame ?? 1e6));
    for (const person of [...Object.values(visitors), session]) await person.leave();
    return after;
  });
  const read = async (name, shot) => {
    await mkdir(options.out, { recursive: true });
    const file = path.join(options.out, `screen-${name}.png`);
    await writeFile(file, Buffer.from(shot, 'base64'));
    return readable(file);
  };
  return {
    read: {
      program: await read('program', program),
      screen_only: await read('only', alone),
      medium: await read('medium', medium),
      low: await read('low', low),
    },
    freezes,
    joined: [
      { first_ms: times[0], read: await read('first', first) },
      { first_ms: times[1], read: await read('second', second) },
    ],
  };
}

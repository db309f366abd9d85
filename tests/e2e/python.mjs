// The Python environment of the tests, and the programs of tests/peers.

import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const PYTHON = fileURLToPath(new URL('../peers/.venv/bin/python', import.meta.url));

export function python() {
  if (existsSync(PYTHON)) return PYTHON;
  throw new Error(`${PYTHON} is missing. Run \`make test\` or \`scripts/setup.sh test\`, which install it.`);
}

export const program = (name) => fileURLToPath(new URL(`../peers/${name}`, import.meta.url));

// What `scripts/check-js.sh` lints by. Names that do not exist are TypeScript's to find.

import js from '@eslint/js';

export default [
  { ignores: ['**/vendor/**'] },
  js.configs.recommended,
  {
    linterOptions: { reportUnusedDisableDirectives: 'error' },
    rules: {
      'array-callback-return': 'error',
      'consistent-return': 'off',
      eqeqeq: 'error',
      'no-await-in-loop': 'off',
      'no-constant-binary-expression': 'error',
      'no-constructor-return': 'error',
      'no-empty': ['error', { allowEmptyCatch: false }],
      'no-implicit-coercion': ['error', { boolean: false }],
      'no-promise-executor-return': 'error',
      'no-self-compare': 'error',
      'no-shadow-restricted-names': 'error',
      'no-template-curly-in-string': 'error',
      'no-throw-literal': 'error',
      'no-undef': 'off',
      'no-unreachable-loop': 'error',
      'no-unused-vars': ['error', { argsIgnorePattern: '^_', varsIgnorePattern: '^_', caughtErrors: 'all' }],
      'no-var': 'error',
      'object-shorthand': 'error',
      'prefer-const': ['error', { destructuring: 'all' }],
      'require-atomic-updates': 'off',
    },
  },
];

// docs.js: the API explorer: Swagger UI over /openapi.json.

/** @type {any} */
const { SwaggerUIBundle } = /** @type {any} */ (window);

SwaggerUIBundle({
  url: '/openapi.json',
  domNode: document.getElementById('explorer'),
  deepLinking: true,
  docExpansion: 'list',
  defaultModelsExpandDepth: 0,
  displayRequestDuration: true,
  filter: true,
  persistAuthorization: false,
  supportedSubmitMethods: ['get', 'put', 'post', 'patch', 'delete'],
  tryItOutEnabled: false,
  validatorUrl: null,
});

const dark = matchMedia('(prefers-color-scheme: dark)');
const paint = () => document.documentElement.classList.toggle('dark-mode', dark.matches);
dark.addEventListener('change', paint);
paint();

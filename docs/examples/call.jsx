// A call in a React application, by the element <commingle-call>. `server` must list the origin of the application in
// `http.frame_ancestors`. Your own server makes the token (docs/api.md, "Authorization"); the browser never sees a key.

import { useEffect, useRef, useState } from 'react';

/** Loads the element of a server once; resolves when it can be used. */
function load(server) {
  const script = document.querySelector(`script[data-commingle="${server}"]`) ?? document.createElement('script');
  if (!script.isConnected) {
    Object.assign(script, { type: 'module', src: new URL('/commingle-call.js', server).href });
    script.dataset.commingle = server;
    document.head.append(script);
  }
  return customElements.whenDefined('commingle-call');
}

export function Call({ server, room, token = undefined, name, onLeft = undefined }) {
  const call = useRef(null);
  const [participant, setParticipant] = useState('');

  useEffect(() => {
    const element = call.current;
    const stop = new AbortController();
    const { signal } = stop;
    element.addEventListener('joined', ({ detail }) => setParticipant(detail.participant), { signal });
    element.addEventListener(
      'left',
      ({ detail }) => {
        setParticipant('');
        onLeft?.(detail.reason);
      },
      { signal },
    );
    load(server);
    return () => stop.abort();
  }, [server, onLeft]);

  return (
    <section>
      <commingle-call ref={call} server={server} room={room} token={token} name={name} />
      {participant && (
        <button type="button" onClick={() => call.current.leave()}>
          Leave
        </button>
      )}
    </section>
  );
}

// Greets who asks, and echoes what is posted, in a stream.
addEventListener('fetch', event => event.respondWith(answer(event.request)));

function answer(request) {
  if (request.method === 'POST') return new Response(request.body);
  return new Response(`Hello ${request.headers.get('x-name')}, here is JavaScript`);
}

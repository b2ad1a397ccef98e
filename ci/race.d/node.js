// Node's http server for ci/race: node.js PORT SECONDS [silent]
'use strict';

const http = require('node:http');

const [port, seconds, silent] = process.argv.slice(2);

// Keeps the processor busy, as an application does.
function work(milliseconds) {
  const end = performance.now() + milliseconds;
  while (performance.now() < end);
}

const server = http.createServer((request, response) => {
  const { socket } = request;
  // Without this, Node announces the idle timeout.
  if (silent) response.setHeader('Connection', 'keep-alive');
  response.setHeader('X-Peer', socket.remoteAddress);
  request.resume();
  work(2);
  response.end('x'.repeat(1000));
  // Newer versions wait a second longer than they announce; this one keeps its word.
  response.on('finish', () => socket.setTimeout(server.keepAliveTimeout));
});

server.keepAliveTimeout = 1000 * seconds;
server.listen({ port, host: '127.0.0.1', backlog: 511 });

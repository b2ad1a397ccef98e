// Node's http server for ci/race: server.js PORT ACCESS_LOG
'use strict';

const fs = require('node:fs');
const http = require('node:http');

const [port, log] = process.argv.slice(2);
const access = fs.openSync(log, 'a');
const carried = new WeakMap();

// Keeps the processor busy, as an application does.
function work(milliseconds) {
  const end = performance.now() + milliseconds;
  while (performance.now() < end);
}

const server = http.createServer((request, response) => {
  const { socket, headers } = request;
  const before = carried.get(socket) ?? 0;
  carried.set(socket, before + 1);
  request.resume();
  work(1);
  // As in apache.conf: an answer takes 200 ms, and the log's lines are the same.
  setTimeout(() => {
    response.end('1\n');
    fs.writeSync(access, `${before} ${headers['x-variant']} ${headers['x-post']} 200\n`);
  }, 200);
  // Newer versions wait a second longer than they announce; this one keeps its word.
  response.on('finish', () => socket.setTimeout(server.keepAliveTimeout));
});

server.keepAliveTimeout = 2000;
server.listen({ port, host: '127.0.0.1', backlog: 511 });

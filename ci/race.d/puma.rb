# The configuration and the application of Puma for ci/race, which sets the port in the environment.

bind "tcp://127.0.0.1:#{ENV.fetch('RACE_PORT')}"
# As many as clients: each waits on its connection for the next request, for 0.2 s.
threads 64, 64
persistent_timeout 2

app do |env|
  env['rack.input'].read
  sleep 0.002
  body = 'x' * 1000
  [200, { 'Content-Length' => body.bytesize.to_s, 'X-Peer' => env['REMOTE_ADDR'] }, [body]]
end

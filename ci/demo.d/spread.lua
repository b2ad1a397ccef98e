-- wrk ... -s spread.lua URL -- METHOD HOST...
-- Spreads requests over the hosts at random, in the same order on every run.

local requests = {}

function init(args)
   local method = args[1]
   local body = method == "POST" and "name=value" or nil
   for i = 2, #args do
      requests[i - 1] = wrk.format(method, "/", { Host = args[i] }, body)
   end
   math.randomseed(1)
end

function request()
   return requests[math.random(#requests)]
end

function done(summary, latency, per_request)
   local e = summary.errors
   print(string.format("microseconds=%d", summary.duration))
   print(string.format("socket_errors=%d", e.connect + e.read + e.write + e.timeout))
end

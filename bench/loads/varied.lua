-- Requests that differ: another query and another cookie each, 4,096 of them in turn, as a browser would send them.
-- They are made before the load begins, so that the load maker does no more work than with one request.

local requests = {}
local at = 0

function init(args)
  for number = 1, 4096 do
    wrk.headers["User-Agent"] = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
    wrk.headers["Accept"] = "application/json, text/event-stream"
    wrk.headers["Accept-Language"] = "en-US,en;q=0.5"
    wrk.headers["Cookie"] = string.format("session=%016x", number * 2654435761 % 4294967296)
    requests[number] = wrk.format("GET", string.format("%s?item=%d", wrk.path, number))
  end
end

function request()
  at = at % #requests + 1
  return requests[at]
end

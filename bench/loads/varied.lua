-- Requests that differ, as browsers send them: another query each, never the same again, and one of 4,096 cookies.
-- All but the number is made before the load begins, so that the load maker does little more than with one request.

local heads, tails = {}, {}
local number = 0

function init(args)
  wrk.headers["User-Agent"] = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
  wrk.headers["Accept"] = "application/json, text/event-stream"
  wrk.headers["Accept-Language"] = "en-US,en;q=0.5"
  for each = 1, 4096 do
    wrk.headers["Cookie"] = string.format("session=%016x", each * 2654435761 % 4294967296)
    heads[each], tails[each] = wrk.format("GET", wrk.path .. "?item=ITEM"):match("^(.-)ITEM(.*)$")
  end
end

function request()
  number = number + 1
  local at = number % #heads + 1
  return heads[at] .. number .. tails[at]
end

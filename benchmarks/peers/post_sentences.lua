-- For wrk: posts the sentences of the file that SENTENCES names (one JSON body per line), each thread and each run in its own
-- order, and prints a summary as one line of JSON. PAUSE_MS lets a connection wait before each request.

local bodies = {}
local counter = 0

function setup(thread)
  counter = counter + 1
  thread:set("number", counter)
end

function init(arguments)
  math.randomseed(7919 * number + tonumber(os.getenv("SEED") or 0))
  for line in io.lines(os.getenv("SENTENCES")) do
    bodies[#bodies + 1] = line
  end
  for place = #bodies, 2, -1 do
    local other = math.random(place)
    bodies[place], bodies[other] = bodies[other], bodies[place]
  end
  next_body = 0
end

function request()
  next_body = next_body % #bodies + 1
  return wrk.format("POST", "/predict", { ["Content-Type"] = "application/json" }, bodies[next_body])
end

if os.getenv("PAUSE_MS") then
  function delay()
    return tonumber(os.getenv("PAUSE_MS"))
  end
end

function done(summary, latency, requests)
  local errors = summary.errors
  local broken = errors.connect + errors.read + errors.write + errors.timeout
  io.write(string.format(
    '\n{"requests": %d, "seconds": %.6f, "not_answered": %d, "p50_ms": %.3f, "p99_ms": %.3f, "longest_ms": %.3f}\n',
    summary.requests, summary.duration / 1e6, errors.status + broken,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, latency.max / 1e3
  ))
end

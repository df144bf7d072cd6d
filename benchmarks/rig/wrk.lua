-- Requests for `wrk`, as many different ones as the first argument's file has lines: METHOD PATH TARGET, and the body, the
-- same for all, in the second argument's file. Prints one line of JSON at the end.
local ready = {}
local at = 0

function init(args)
  local body = io.open(args[2]):read("*a")
  local known = {}
  for line in io.lines(args[1]) do
    if not known[line] then
      local path, target = line:match("^(%S+) (%S+)$")
      local headers = { ["Content-Type"] = "text/csv", ["X-Amzn-SageMaker-Target-Model"] = target }
      known[line] = wrk.format("POST", path, headers, body)
    end
    ready[#ready + 1] = known[line]
  end
  math.randomseed(os.time())
  at = math.random(#ready)
end

function request()
  at = at % #ready + 1
  return ready[at]
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '\n{"requests":%d,"seconds":%f,"bad_status":%d,"broken":%d,"p50_us":%d,"p90_us":%d,"p99_us":%d,"p999_us":%d,"max_us":%d,"mean_us":%f}\n',
    summary.requests, summary.duration / 1e6, errors.status, errors.connect + errors.read + errors.write + errors.timeout,
    latency:percentile(50), latency:percentile(90), latency:percentile(99), latency:percentile(99.9), latency.max,
    latency.mean))
end

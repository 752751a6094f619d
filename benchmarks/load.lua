-- What wrk sends, and its figures as one line of JSON.
local file = io.open(os.getenv("BENCH_BODY"), "rb")
wrk.method, wrk.body = "POST", file:read("*a")
file:close()

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '{"requests_per_s": %.1f, "p50_ms": %.3f, "p99_ms": %.3f, "failed": %d}\n',
    summary.requests / summary.duration * 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end

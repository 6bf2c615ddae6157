"""What the engine counts, for Prometheus."""

from prometheus_client import Counter, Gauge, Histogram

REQUESTS = Counter("fishserve_requests", "Requests ended, by how.", ["reason"])
RUNNING = Gauge("fishserve_requests_running", "Requests being generated.", multiprocess_mode="livesum")
WAITING = Gauge("fishserve_requests_waiting", "Requests waiting for a row.", multiprocess_mode="livesum")
FIRST_AUDIO = Histogram(
    "fishserve_time_to_first_audio_seconds",
    "From submission to the first chunk of audio.",
    buckets=(0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1, 2, 5, 10, 30),
)
AUDIO_SECONDS = Counter("fishserve_audio_seconds", "Seconds of audio handed out.")
FRAMES = Counter("fishserve_frames", "Frames generated.")

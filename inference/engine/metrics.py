"""The engine's Prometheus metrics."""

from prometheus_client import Counter, Gauge, Histogram

REQUESTS = Counter("fishserve_requests", "Requests ended, by how.", ["reason"])
RUNNING = Gauge("fishserve_requests_running", "Requests being generated.", multiprocess_mode="livesum")
WAITING = Gauge("fishserve_requests_waiting", "Requests waiting for a slot.", multiprocess_mode="livesum")
FIRST_AUDIO = Histogram(
    "fishserve_time_to_first_audio_seconds",
    "From submission to the first chunk of audio.",
    buckets=(0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1, 2, 5, 10, 30),
)
CHUNK_GAP = Histogram(
    "fishserve_chunk_gap_seconds",
    "From one chunk of a request to the next.",
    buckets=(0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5),
)
LONGEST_GAP = Histogram(
    "fishserve_longest_gap_seconds",
    "The longest time for which a listener who plays a request's audio as it comes had nothing to hear, once for each request that sounded.",
    buckets=(0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10),
)
UNDERRUN_SECONDS = Counter("fishserve_underrun_seconds", "Seconds for which listeners who play audio as it comes had nothing to hear.")
OLDEST_WAITING = Gauge(
    "fishserve_oldest_waiting_seconds", "How long the oldest request without a slot has waited.", multiprocess_mode="livemax"
)
SLOTS_FREE = Gauge("fishserve_slots_free", "Requests that could be generated beside those that are.", multiprocess_mode="livesum")
REAL_TIME_FACTOR = Histogram(
    "fishserve_real_time_factor",
    "Times real time: seconds of audio for each second from a request's first work to its end.",
    buckets=(0.25, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 20, 50),
)
BATCH = Histogram("fishserve_batch_size", "Requests that got a frame in one step.", buckets=(1, 2, 4, 8, 16, 32, 64, 128))
AUDIO_SECONDS = Counter("fishserve_audio_seconds", "Seconds of audio handed out.")
FRAMES = Counter("fishserve_frames", "Frames generated.")
REFUSED = Counter("fishserve_requests_refused", "Requests refused because the queue was full.")
STEP = Histogram(
    "fishserve_step_seconds",
    "One frame for every running request: language model, sampling and what was vocoded.",
    buckets=(0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.25, 0.5, 1),
)
GRAPHS = Gauge(
    "fishserve_graphs",
    "Whether frames, prompts (prefill) and the codec run as CUDA graphs: 1, or 0 for eager kernels.",
    ["part"],
    multiprocess_mode="livemin",
)
CLIPS = Counter("fishserve_clips_encoded", "Clips turned into codes.")
PREFIXES = Counter("fishserve_prefix_lookups", "Voices looked up in the cache of computed prompts.", ["result"])
PREFIX_BYTES = Gauge("fishserve_prefix_bytes", "Bytes of computed prompts kept.", multiprocess_mode="livesum")
POSITIONS = Gauge("fishserve_kv_positions", "Positions of the key/value cache in use.", multiprocess_mode="livesum")
GUARD_FAULTS = Counter("fishserve_guard_faults", "Faults that the guard found in takes.", ["fault"])
GUARD_RETRIES = Counter("fishserve_guard_retries", "Segments spoken once more because their take was faulty.")
GUARD_FRAMES = Counter("fishserve_guard_frames_discarded", "Frames generated and not sent because of faults.")
GUARD_UNMENDED = Counter("fishserve_guard_unmended", "Segments sent with a fault.")

"""What speech costs: latency, throughput, comparison."""

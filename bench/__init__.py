"""Benchmarks: latency, throughput, comparison."""

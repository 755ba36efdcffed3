"""Parts of `bench_streams`: generated feedback, the baseline, restart times, and event sizes."""

"""Benchmarks: measurements behind the figures in `docs/`. Checks with a pass or fail are tests.

`make bench-NAME` runs the module `bench_NAME`. Each prints a table and writes
`.ratchet/bench/<name>.json`. In the order of the data flow:

- `bench_streams`: throughput of the feedback and dataset services, against a plain consumer
- `bench_profile`: CPU time of these services, by part of the code
- `bench_selection`: training data selection strategies, by the quality of the trained adapter
- `bench_trainer`: training speed against TRL and transformers, and seconds from batch to outcome
- `bench_defaults`: the default settings against the demo's tuned recipe, time and exact answers
- `bench_gpu`: training speed and memory on a GPU, against TRL and transformers
- `bench_gate`: error rates of the gate on candidates of known quality; writes docs/gate.md
- `bench_registry`: rollback and switching times, and the live monitor
- `bench_loop`: seconds from the 50th example to the new version's first answer

`sizing` computes docs/scaling.md. `results` and `throughput` are shared by the benchmarks; the
packages `streams`, `trainer`, `gate` and `registry` hold the parts of one benchmark each.
"""

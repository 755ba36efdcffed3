"""Parts of `bench_gate`: the task, the simulated bounds, and the tables of docs/gate.md."""

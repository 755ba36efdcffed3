"""Parts of `bench_registry`, and the registry's rate of live feedback."""

"""Prometheus configuration and rules; generates docs/metrics.md from the metric catalogue."""

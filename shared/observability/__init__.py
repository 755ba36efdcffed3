"""Health, metrics and traces of a service.

OpenTelemetry is imported by `otlp` alone; dashboards and alert rules are in `deploy/`.
"""

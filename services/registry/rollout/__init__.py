"""Rollout decisions from live feedback: the monitor of the champion, canary trials of challengers,
and holds.

Deployment to targets is in `services.registry.deploy`, the evaluation gate in the trainer.
"""

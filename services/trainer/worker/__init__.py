"""The training process and its clients: start, protocol, failures and placement on Ray. Training
itself is in `services.trainer.training`.
"""

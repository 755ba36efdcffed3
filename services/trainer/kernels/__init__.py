"""Forward and backward passes of the trainer's own: packed attention, LoRA projections, LM-head
log-likelihoods and a cache of frozen layers. Nothing here loads models, reads data or knows about
runs.
"""

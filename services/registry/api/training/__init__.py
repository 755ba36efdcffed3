"""The operators' control of training over HTTP."""

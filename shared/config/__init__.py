"""Configuration: settings from environment variables, and the model files (`models/<name>.yaml`)
with their parts.

Only declarations and their validation; the code that acts on a setting belongs to its service.
"""

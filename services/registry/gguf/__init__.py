"""GGUF files: reading their layout and merging LoRA adapters into them.

Nothing here knows of databases, object stores or targets. The `gguf` library is imported only in
this package.
"""

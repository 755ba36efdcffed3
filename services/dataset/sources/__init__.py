"""Readers of documents: files become blocks with their places, and blocks become chunks.

One module per type of file. Readers are functions of a file's bytes, and run in a process of their
own with limits on time and memory (`isolated_reader`). What examples are made of chunks belongs to
`services.dataset.building`.
"""

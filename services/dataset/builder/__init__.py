"""Builder: turns training requests from the registry into announced batches, one at a time.

`python -m services.dataset.builder` consumes the requests. Each is carried out by a process of its
own (`worker`), which imports an uploaded file and writes the batch: it uses much memory for a
moment, and a hostile file ends it rather than the builder.
"""

"""Building of a dataset from documents: from chunks to curated examples, with a report.

The steps are pure functions in the order of their modules' names in `dataset_building`. Reading of
files belongs to `services.dataset.sources`; curation and the snapshot are those of imported files
(`services.dataset.imports`).
"""

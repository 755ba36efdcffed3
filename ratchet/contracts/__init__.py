"""Published event contracts, generated from the code: JSON Schemas, an AsyncAPI document and a
Markdown page.

The events themselves are declared in `shared.events`, the topics in `shared.messaging.topics`.
"""

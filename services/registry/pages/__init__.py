"""The registry's web pages for people: views, templates, forms and static files.

Rendered on the server. Decisions about versions and SQL do not belong here.
"""

"""HTTP building blocks of every server: health endpoints, problem details, bearer tokens, the check
for local requests.

Routes and web frameworks belong to the service that serves them.
"""

"""Taking personal data out of feedback before it is stored: what is found, and what stands in its
place.
"""

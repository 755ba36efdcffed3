"""What is promised on the bus, written down: JSON Schemas, an AsyncAPI document and a page, all
made from the code.
"""

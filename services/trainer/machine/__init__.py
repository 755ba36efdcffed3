"""The machine that trains: its base models, device and memory, and the checks that `ratchet doctor`
reports. Training itself does not belong here.
"""

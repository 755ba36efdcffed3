"""`ratchet new`: writes a model file with its sets from `template/`, and checks the base."""

"""One module for each migration; older ones are in packages of ten."""

"""Where versions are served: a small protocol, and the targets that follow it."""

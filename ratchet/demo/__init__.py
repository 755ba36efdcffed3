"""The demo: an application whose users give feedback, driven through the bus and HTTP alone."""

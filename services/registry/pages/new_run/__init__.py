"""Pages on which an operator starts a training and follows it: the form, its check, the request."""

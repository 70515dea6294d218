"""Build an image offline: plan, context, Dockerfile, smoke checks. Python 3.10 standard library only."""

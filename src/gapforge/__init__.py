"""gapforge carries a GPU software stack across an air gap and builds it on the other side."""

__version__ = "0.2.0"
LEAST_PYTHON = (3, 10)  # of Ubuntu 22.04; __main__.py states it once more, for an older Python

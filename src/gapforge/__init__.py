"""gapforge carries a GPU software stack across an air gap and builds it on the other side."""

__version__ = "0.2.0"

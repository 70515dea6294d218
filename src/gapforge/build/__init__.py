"""The offline half: verify, plan, context, build, smoke. Python 3.10 standard library only."""

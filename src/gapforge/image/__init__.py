"""Build images at a site without a network: plan, context, engine, smoke checks, report."""

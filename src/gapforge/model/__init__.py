"""Read and write the nouns: schema, preset, lock, component."""

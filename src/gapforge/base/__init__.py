"""Hold what every other part uses: errors, files, processes, progress, messages."""

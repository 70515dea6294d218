"""The command line: one module per verb. Only this package prints results and sets exit codes."""

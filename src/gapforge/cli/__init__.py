"""The command line: one module a verb. Only this package prints results and decides exit codes."""

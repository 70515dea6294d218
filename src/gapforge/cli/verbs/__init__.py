"""Define the verbs, one module each: HELP, add_arguments(parser) and run(args, project)."""

"""The command line: a file for each command, presentation only. The work is in `zoo.api`."""

"""What the user asked for: options, environment, configuration file, and the checks that need only paths."""

"""The command line: `upwell`. One file a command group, each loaded when one of its commands is asked for."""

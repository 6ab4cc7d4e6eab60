"""The command ``kronmodel``: options, console output, progress as JSON lines, HTML reports."""

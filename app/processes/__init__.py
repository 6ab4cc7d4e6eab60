"""Child processes, and the JSON messages between them and their parent."""
